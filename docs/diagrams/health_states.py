"""The states of health, by asking the state machine about everything that can be seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product

from llama_gguf.health.state import Observation, Status, advance
from llama_gguf.states import Phase, ServiceState

_NOTHING = Observation()
_FAILURE = "any"
_FEW = 2  # states with a change in common that need no frame
_ENGINE = (None, Phase.LOADING, Phase.SERVING, Phase.SILENT, Phase.BROKEN)
_SIGHTS = tuple(
    Observation(engine=engine, gateway=gateway, draining=draining, failure=failure)
    for engine, gateway, draining, failure in product(_ENGINE, (False, True), (False, True), (None, _FAILURE))
)


def draw() -> str:
    """Return the diagram: each change of state with what all sights that lead to it have in common.

    Changes that several states share are drawn once, from a frame around them.
    """
    order = list(ServiceState)
    labels = _labels()
    shared = defaultdict(set)
    for (before, after), label in labels.items():
        shared[after, label].add(before)
    frame = min((states for states in shared.values() if len(states) > _FEW), key=len, default=set(order))
    lines = ["stateDiagram-v2", '  state " " as any {', f"    [*] --> {ServiceState.STARTING}"]
    outer = []
    for before, after in sorted(labels, key=lambda pair: [order.index(state) for state in pair]):
        line = f"{before} --> {after}: {labels[before, after]}"
        if before in frame and after in frame:
            lines.append(f"    {line}")
        elif shared[after, labels[before, after]] >= frame and before in frame:
            outer.append(f"  any --> {after}: {labels[before, after]}")
        else:
            outer.append(f"  {line}")
    return "\n".join([*lines, "  }", *dict.fromkeys(outer)])


def _labels() -> dict[tuple[ServiceState, ServiceState], str]:
    """Return every change of state, and what leads to it beyond what is so already in the state before."""
    steps, found = _steps(), {}
    for before, after in steps:
        if before != after:
            known = _common(steps[before, before]) if (before, before) in steps else []
            words = [word for word in _common(steps[before, after]) if word not in known]
            found[before, after] = " and ".join(words) or "otherwise"
    return found


def _steps() -> dict[tuple[ServiceState, ServiceState], list[Observation]]:
    """Return which state can follow which, and the sights that lead to it. A failure and a stop last."""
    steps: dict[tuple[ServiceState, ServiceState], list[Observation]] = defaultdict(list)
    open_ = [(Status(ServiceState.STARTING, 0.0), False, False)]
    known = set(open_)
    while open_:
        before, draining, failed = open_.pop()
        for seen in _SIGHTS:
            if (draining and not seen.draining) or (failed and not seen.failure):
                continue
            after = advance(before, seen, 0.0)
            steps[before.state, after.state].append(seen)
            step = (replace(after, silent_checks=min(after.silent_checks, 9)), seen.draining, bool(seen.failure))
            if step not in known:
                known.add(step)
                open_.append(step)
    return steps


def _common(sights: list[Observation]) -> list[str]:
    """Return which values all `sights` share, as far as they are not those of nothing seen."""
    words = []
    for name in ("failure", "draining", "engine", "gateway"):
        values = {getattr(seen, name) for seen in sights}
        value = next(iter(values))
        if len(values) == 1 and value != getattr(_NOTHING, name):
            words.append(name if value in {True, _FAILURE} else f"{name} {value}")
    return words
