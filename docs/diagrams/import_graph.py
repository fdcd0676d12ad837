"""Which module of the package imports which, read from the sources; nothing is imported for it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

SERVICES = Path(__file__).resolve().parents[2] / "services"
PACKAGE = "llama_gguf"
Graph = Mapping[str, set[str]]


@cache
def sources() -> dict[str, ast.Module]:
    """Return every module of the package by its dotted name, parsed."""
    return {
        ".".join(path.relative_to(SERVICES).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted((SERVICES / PACKAGE).rglob("*.py"))
    }


def imported_names(module: str) -> dict[str, str]:
    """Return the names that `module` imports, wherever in it, and what each stands for: `a.module` or `a.module.name`.

    Modules are imported by absolute names or from the same folder.
    """
    folder = module if (SERVICES / Path(*module.split(".")) / "__init__.py").exists() else module.rpartition(".")[0]
    found: dict[str, str] = {}
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            source = ".".join(filter(None, (folder if node.level else "", node.module)))
            found.update({alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names})
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Return for each module of the package those of ours that it imports."""
    owners = {
        module: {_owner(target) for target in imported_names(module).values() if _owner(target)} - {module}
        for module in sources()
    }
    return {module: {name for name in names if name} for module, names in owners.items()}


def _owner(target: str) -> str:
    """Return the module in which an imported name is found, or "" for one that is not ours."""
    if target in sources():
        return target
    module = target.rpartition(".")[0]
    return module if module in sources() else ""


def reachable(graph_: Graph, start: str) -> set[str]:
    """Return what `start` imports, directly or not, itself included."""
    found, open_ = {start}, [start]
    while open_:
        new = graph_.get(open_.pop(), set()) - found
        found |= new
        open_ += new
    return found


def reduced(graph_: Graph) -> dict[str, set[str]]:
    """Return `graph_`, which has no circle, without the arrows that follow from others."""
    return {
        name: {
            target for target in targets if not any(target in reachable(graph_, other) for other in targets - {target})
        }
        for name, targets in graph_.items()
    }
