"""The reference lists every code of keys and of rendering, and every failure of the engine that is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from llama_gguf.cli.generate import reference_problems as problems
from llama_gguf.engine.known_failures import RULES, SIGNALS
from llama_gguf.keys.error_codes import KEYS_CODES
from llama_gguf.platforms.error_codes import RENDER_CODES
from llama_gguf.rundir.notices import NOTICE_CODES
from llama_gguf.settings.messages.codes import PROBLEM_CODES


@pytest.mark.parametrize(
    ("section", "codes"), [(problems.keys_section, KEYS_CODES), (problems.rendering_section, RENDER_CODES)]
)
def test_every_code_has_a_row_with_its_meaning(section: Callable[[], str], codes: Mapping[str, str]) -> None:
    text = section()
    assert text.startswith("## ")
    assert [line for line in text.splitlines() if line.startswith("| `")] == [
        f"| `{code}` | {meaning} |" for code, meaning in codes.items()
    ]


def test_every_warning_of_a_running_appliance_has_a_row() -> None:
    text = problems.notices_section()
    assert text.startswith("## ")
    for code, meaning in NOTICE_CODES.items():
        assert f"| `{code}` | {meaning} |" in text.splitlines()
    for code in ("no-chat-template", "no-pooling", "no-reranker", "context-over-training"):
        assert f"| `{code}` | {PROBLEM_CODES[code]} |" in text.splitlines()


def test_every_failure_has_a_row_and_what_the_engine_said_is_left_open() -> None:
    text = problems.failures_section()
    rows = text.splitlines()[4:]
    assert len(rows) == len(RULES) + len(SIGNALS)
    assert "{" not in text
    assert "| the model cannot be loaded: … | check the model file and its settings |" in rows
    assert "| the multimodal projector … cannot be loaded |" in text  # two groups of which one has matched
