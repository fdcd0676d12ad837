"""llama-server's arguments as listed by its own `--help`: what our argv is checked against.

Written to schema/engine/flags.json by `llama-gguf gen`; a contract test compares the file with the installed program
and every argument that `argv` passes with the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_gguf.engine.binary import PROGRAM, query, wheel_bin_directory
from llama_gguf.engine.environment import engine_environment
from llama_gguf.errors import LaunchError

_NAME = re.compile(r"(--?[A-Za-z][\w.-]*)(,?)\s*")
_VARIABLE = re.compile(r"\(env: (\w+)\)")
_HELP_COLUMN = 40


@dataclass(frozen=True, slots=True)
class Flag:
    """One argument: all its spellings, its value ("" = none), and the variable that also sets it."""

    names: tuple[str, ...]
    value: str
    variable: str
    removed: bool  # still listed, but rejected


def parse_help(text: str) -> tuple[Flag, ...]:
    """Parse the output of `llama-server --help`."""
    flags: list[Flag] = []
    entry: list[str] = []
    for line in [*text.splitlines(), "-----"]:
        if line.startswith("-") and entry:
            flags.append(_flag(entry))
            entry = []
        if line.startswith("-----"):
            continue
        if line.startswith("-") or entry:
            entry.append(line)
    return tuple(flags)


def _flag(entry: list[str]) -> Flag:
    rest, names, more = entry[0], [], ","
    while more and (match := _NAME.match(rest)):
        names.append(match[1])
        more, rest = match[2], rest[match.end() :]
    start = len(entry[0]) - len(rest)
    value = "" if start == _HELP_COLUMN else re.split(r"\s{2,}", rest)[0]  # the help text starts in that column
    help_text = "\n".join(entry)
    variable = _VARIABLE.search(help_text)
    return Flag(tuple(names), value, variable[1] if variable else "", "argument has been removed" in help_text)


def flag_dump() -> str:
    """Return schema/engine/flags.json for the llama-server of the installed llama-cpp-python."""
    directory = wheel_bin_directory()
    if directory is None:
        raise LaunchError("llama-cpp-python is not installed", hint="run `make engine`")
    text = query(directory / PROGRAM, "--help", engine_environment(os.environ, Path("/nonexistent")))
    content = {
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "flags": [asdict(flag) for flag in parse_help(text)],
    }
    return json.dumps(content, indent=1) + "\n"
