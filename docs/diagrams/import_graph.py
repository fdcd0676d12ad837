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
def modules() -> dict[str, Path]:
    """Return where each module of the package lies, by its dotted name."""
    return {
        ".".join(path.relative_to(SERVICES).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((SERVICES / PACKAGE).rglob("*.py"))
    }


@cache
def sources() -> dict[str, ast.Module]:
    """Return every module of the package by its dotted name, parsed."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules().items()}


@cache
def imports(module: str) -> tuple[tuple[str, str], ...]:
    """Return each name that `module` imports, and what it stands for: `a.module` or `a.module.name`.

    Imports within functions and for type checking count too. That a package runs before its modules does not, else a
    package could not show what its modules have.
    """
    is_package = any(name.startswith(f"{module}.") for name in sources())
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[tuple[str, str]] = []
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found += [(alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names]
    return tuple(found)


def imported_names(module: str) -> dict[str, str]:
    """Return what each name that `module` imports stands for."""
    return dict(imports(module))


@cache
def graph() -> dict[str, set[str]]:
    """Return for each module of the package those of ours that it imports."""
    return {module: {_owner(target) for _, target in imports(module)} - {module, ""} for module in sources()}


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
