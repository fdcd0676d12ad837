"""The programs and the files of the run directory in which they meet, from who uses which attribute of `RunDir`.

Told from the sources: a program has the modules of its own package, and others that only it imports. It writes a file
where it hands its path to something that writes, and reads it where it uses the path otherwise.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from llama_gguf.runtime.programs import build_programs
from llama_gguf.settings import RunDir, Settings
from llama_gguf.settings.locations import RunFile

from .import_graph import PACKAGE, graph, imported_names, reachable, sources

_UP = "up"
_WRITING = {"write_text", "write_bytes", "touch", "symlink_to", "replace", "rename"}
_REMOVING = {"unlink"}
_FILES = {name for name, value in vars(RunDir).items() if isinstance(value, RunFile)}
_HOLDERS = {"run", "_run", "run_dir"}
"""Names under which the code holds a RunDir."""


def draw() -> str:
    """Return the diagram, from left to right: who writes, the files that others read, who reads."""
    writers, readers = _users()
    boxes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(_FILES):
        # Nobody needs to be told that a program reads what it alone writes.
        others = readers[name] - (writers[name] if len(writers[name]) == 1 else set())
        if writers[name] and others:
            writing = " & ".join(f"{program}({program})" for program in entries() if program in writers[name])
            reading = [program for program in entries() if program in others]
            is_all = others | writers[name] == set(entries()) and len(writers[name]) == 1
            label = "all others" if is_all else ", ".join(reading)
            boxes[writing, f"to_{re.sub('[^a-z]+', '_', label)}({label})"].append(name)
    lines = ["flowchart LR"]
    for (writing, users), names in sorted(boxes.items()):
        files = "<br>".join(getattr(RunDir(Path()), name).name for name in names)
        lines.append(f'  {writing} --> {names[0]}["{files}"] --> {users}')
    return "\n".join(lines)


@cache
def entries() -> dict[str, str]:
    """Return the programs by name, and the module with which each begins."""
    programs = build_programs(Settings.model_validate({"model": {"path": "/m.gguf"}}), "python")
    found = {program.name: program.argv[-1] for program in reversed(programs)}
    return {_UP: f"{PACKAGE}.runtime.launch"} | {
        name: f"{module}.__main__" if f"{module}.__main__" in sources() else module for name, module in found.items()
    }


def _users() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    writers: dict[str, set[str]] = defaultdict(set)
    readers: dict[str, set[str]] = defaultdict(set)
    for module in sources():
        uses = list(uses_in(module))
        for program in _programs_of(module) if uses else ():
            for name, writes in uses:
                (writers if writes else readers)[name].add(program)
    for name in _FILES:  # a socket is made by the program whose it is
        writers[name] |= {program for program in entries() if name == f"{program}_socket"}
    return writers, readers


def _programs_of(module: str) -> set[str]:
    """Return the programs that have `module`: the one whose package it is in, else all that load it."""
    of_package = module.removeprefix(f"{PACKAGE}.").partition(".")[0]
    if of_package in entries():
        return {of_package}
    return {name for name, entry in entries().items() if module in reachable(graph(), entry)}


def uses_in(module: str) -> Iterator[tuple[str, bool]]:
    """Yield each file of the run directory that `module` uses, and whether it writes it."""
    tree = sources()[module]
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and node.attr in _FILES and _is_run_dir(node.value)):
            continue
        user = parents[node]
        if isinstance(user, ast.Attribute):
            if user.attr not in _REMOVING:
                yield node.attr, user.attr in _WRITING
        elif isinstance(user, ast.keyword | ast.Call):
            call = parents[user] if isinstance(user, ast.keyword) else user
            yield node.attr, isinstance(call, ast.Call) and _writes(module, call, frozenset())
        elif not isinstance(user, ast.Tuple):  # a list of files is one to clear
            yield node.attr, False


def _is_run_dir(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == RunDir.__name__
    return getattr(value, "attr", getattr(value, "id", "")) in _HOLDERS


def _writes(module: str, call: ast.Call, seen: frozenset[tuple[str, str]]) -> bool:
    """Return whether a call writes a file: itself, or within functions and classes of ours that it goes to."""
    function = ast.unparse(call.func)
    if function.rpartition(".")[2] in _WRITING or (function == "os.open" and "O_CREAT" in ast.unparse(call)):
        return True
    owner, name = _found_at(module, function)
    if (owner, name) in seen or owner not in sources():
        return False
    return any(
        _writes(owner, inner, seen | {(owner, name)})
        for definition in sources()[owner].body
        if getattr(definition, "name", None) == name
        for inner in ast.walk(definition)
        if isinstance(inner, ast.Call)
    )


def _found_at(module: str, function: str) -> tuple[str, str]:
    """Return the module and name behind `function` as `module` calls it."""
    first, _, rest = function.partition(".")
    target = imported_names(module).get(first, f"{module}.{first}")
    owner, _, name = (f"{target}.{rest}" if rest else target).rpartition(".")
    return owner, name
