"""The environment of supervisord and of each program: only the variables it needs. Pure.

Every program inherits supervisord's environment. That has the common variables and those that single programs need (a
hub token, a password); for all other programs the ini file sets these to "", so it holds names but no values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from llama_gguf.runtime.programs import Program
from llama_gguf.settings.environment_filter import DEVICES, SYSTEM, filter_environment, matches

COMMON = (*SYSTEM, *DEVICES, "PYTHON*", "COVERAGE_*")
"""Variables for every program: of the system, of the devices, of Python and its coverage."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def supervised_environment(env: Mapping[str, str], programs: Sequence[Program]) -> dict[str, str]:
    """Return what of `env` supervisord gets: what is common, and what at least one program asks for."""
    needed = [pattern for program in programs for pattern in program.variables]
    special = {name: value for name, value in env.items() if matches(name, needed) and _NAME.fullmatch(name)}
    return filter_environment(env, COMMON) | special


def withheld(program: Program, programs: Sequence[Program], names: Iterable[str]) -> list[str]:
    """Return those of `names` that other programs ask for and this one does not."""
    others = [pattern for other in programs for pattern in other.variables]
    return sorted(name for name in names if matches(name, others) and not matches(name, program.variables))
