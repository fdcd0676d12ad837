"""The packages and their arrows, from the imports in the sources."""

from __future__ import annotations

from .import_graph import PACKAGE, Graph, graph, reduced


def draw() -> str:
    """Return the diagram; arrows point at what is imported, and those that follow from others are left out."""
    found = parts()
    floor = _floor(found)
    merged = {name: {"floor" if target in floor else target for target in found[name]} for name in found}
    arrows = reduced({name: targets for name, targets in merged.items() if name not in floor})
    lines = ["flowchart TB"]
    lines += [f"  {name} --> {' & '.join(sorted(arrows[name]))}" for name in _from_the_top(arrows)]
    return "\n".join([*lines, f'  floor["{" · ".join(sorted(floor))}"]'])


def parts() -> dict[str, set[str]]:
    """Return which part of the package, a folder or a module at its top, imports which others."""
    found: dict[str, set[str]] = {}
    for module, targets in graph().items():
        if part := _part(module):
            found.setdefault(part, set()).update({_part(target) for target in targets} - {part, ""})
    return found


def _floor(found: Graph) -> set[str]:
    """Return the single modules at the top that use nothing but one another: one box, because everybody uses them."""
    floor = {name for name in found if not any(module.startswith(f"{PACKAGE}.{name}.") for module in graph())}
    while outside := {name for name in floor if found[name] - floor}:
        floor -= outside
    return floor


def _part(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0] if module != PACKAGE else ""


def _from_the_top(arrows: Graph) -> list[str]:
    """Return the parts that import something, those nobody imports first: so Mermaid lays them out."""
    left, order = set(arrows), list[str]()
    while left:
        free = sorted(left - set().union(*(arrows[name] for name in left)))
        order += free
        left -= set(free)
    return order
