"""What is left out next after an engine has failed: pure, for CPUs that are not here."""

from __future__ import annotations

import pytest
from image.engine.fallback import FALLBACKS, Fallback, choose

XEON = {"sse4_2", "avx", "avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8"}
EPYC = {"sse4_2", "avx", "avx2", "avx512f", "avx512_vnni"}
HASWELL = {"sse4_2", "avx", "avx2"}
GRAVITON = {"asimd", "asimddp", "sve"}


def names(flags: set[str], answers: list[bool]) -> list[str]:
    """Go on failing; each answer is whether the engine that failed was right with its weights left as they are."""
    tried: list[Fallback] = []
    for works in answers:
        found = choose(flags, tried, works_without_extra_buffers=works)
        if found is None:
            return [feature.name for feature in tried] + ["give up"]
        tried.append(found)
    return [feature.name for feature in tried]


@pytest.mark.parametrize(
    ("flags", "answers", "expected"),
    [
        (XEON, [True], ["AMX"]),
        (XEON, [True, True], ["AMX", "repacked weights"]),
        (XEON, [True, True, True], ["AMX", "repacked weights", "give up"]),
        (XEON, [False], ["AVX-512"]),
        (XEON, [True, False], ["AMX", "AVX-512"]),
        (EPYC, [True], ["repacked weights"]),
        (EPYC, [False, False, False], ["AVX-512", "AVX", "give up"]),
        (HASWELL, [False], ["AVX"]),
        (GRAVITON, [False, False], ["optional instructions", "give up"]),
        (GRAVITON, [True], ["repacked weights"]),
        (set(), [False], ["give up"]),
    ],
)
def test_what_is_left_out_next(flags: set[str], answers: list[bool], expected: list[str]) -> None:
    assert names(flags, answers) == expected


def test_what_leaves_avx_512_out_leaves_amx_out_too() -> None:
    by_name = {feature.name: set(feature.compiler_flags) for feature in FALLBACKS}
    assert by_name["AMX"] < by_name["AVX-512"] < by_name["AVX"]


def test_no_argument_holds_a_blank() -> None:
    assert not [item for feature in FALLBACKS for item in (*feature.cmake, *feature.compiler_flags) if " " in item]
