"""Whose environment holds what: each program sees only what it needs, and so does supervisord. Pure.

supervisord hands its own environment on to every program. So it gets what is common, and what some program asks for
(a hub token, a password); in the environment of all others that is blanked, by name: no value gets into its ini file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from llama_gguf.runtime.programs import Program
from llama_gguf.settings.environment_filter import DEVICES, SYSTEM, filter_environment, matches

COMMON = (*SYSTEM, *DEVICES, "PYTHON*", "COVERAGE_*")
"""What every program may see: of the system, and of the interpreter and what measures it."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def supervised_environment(env: Mapping[str, str], programs: Sequence[Program]) -> dict[str, str]:
    """Return what of `env` supervisord gets: what is common, and what at least one program asks for."""
    asked = [pattern for program in programs for pattern in program.variables]
    special = {name: value for name, value in env.items() if matches(name, asked) and _NAME.fullmatch(name)}
    return filter_environment(env, COMMON) | special


def withheld(program: Program, programs: Sequence[Program], names: Iterable[str]) -> list[str]:
    """Return those of `names` that other programs ask for and this one does not."""
    others = [pattern for other in programs for pattern in other.variables]
    return sorted(name for name in names if matches(name, others) and not matches(name, program.variables))
