"""Whether llama-server knows the arguments in `engine.extra_args`, by its own `--help`.

It would refuse an unknown one itself, but only when the weights have been downloaded. Nothing is asked of it if there
are no such arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.engine.binary import query
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.flags import Flag, parse_help
from llama_gguf.errors import LaunchError, Problem
from llama_gguf.settings.words import closest

if TYPE_CHECKING:
    from llama_gguf.settings import Settings

_TWO_VALUES = "START END"
_REPLACED = {"--no-mmap": '"--load-mode", "none"', "--mlock": '"--load-mode", "mlock"'}
"""Well-known arguments that llama.cpp no longer has."""


def extra_args_problems(settings: Settings, binary: Path, run_dir: Path, env: Mapping[str, str]) -> list[Problem]:
    """Return the arguments that the llama-server `binary` does not know; nothing if it cannot be asked."""
    args = settings.engine.extra_args
    if not args:
        return []
    try:
        flags = parse_help(query(binary, "--help", engine_environment(env, run_dir)))
    except LaunchError:
        return []  # it does not run on this machine, which is told in another place
    understood = any("--model" in flag.names for flag in flags)  # another program's help, or of another form
    return list(unknown_arguments(args, flags)) if understood else []


def unknown_arguments(args: Sequence[str], flags: Sequence[Flag]) -> Iterator[Problem]:
    """Yield a problem for each of `args` that is not among `flags`; read from left to right as llama-server does."""
    known = {name: flag for flag in flags for name in flag.names}
    index, before = 0, ""
    while index < len(args):
        item, place = args[index], f"engine.extra_args[{index}]"
        name = item.replace("_", "-") if item.startswith("--") else item
        index += 1
        flag = known.get(name)
        if flag is None:
            yield _unknown(place, item, before, known)
            before = ""
            while index < len(args) and not args[index].startswith("-"):
                index += 1  # its values
            continue
        before = name
        if flag.removed:
            message = f"{place}: llama-server has removed the argument {name}"
            yield Problem("unknown-argument", message, place, hint="see `llama-server --help` for what replaces it")
        values = 0 if not flag.value else 2 if flag.value == _TWO_VALUES else 1
        if index + values > len(args):
            message = f"{place}: {name} lacks its value, {flag.value}"
            yield Problem("argument-without-value", message, place, hint="write it as the next item of the list")
        index += values


def _unknown(place: str, item: str, before: str, known: Mapping[str, Flag]) -> Problem:
    name, equals, value = item.partition("=")
    if equals and name in known:
        hint = f'write two items: "{name}", "{value}"'
    elif not item.startswith("-") and before:
        hint = f"{before} takes no value" if not known[before].value else f"{before} takes one value"
    elif item in _REPLACED:
        hint = f"llama.cpp has replaced it by {_REPLACED[item]}"
    else:
        near = closest(item, known)
        hint = f"did you mean {near}?" if near else "see `llama-server --help` for those it knows"
    return Problem("unknown-argument", f"{place}: llama-server does not know the argument {item}", place, hint=hint)
