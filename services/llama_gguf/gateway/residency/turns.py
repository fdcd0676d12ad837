"""Whose turn it is to be loaded, and from when a model has to give way to another. Pure.

Models that cannot be in memory together take turns. Who has had none since the longest-waiting request came goes
first, so each waits for one turn of each other at most. Among those, the one that serves most waiting requests for the
seconds of its load goes first, until one waits too long. Who has had a turn goes behind, the last to have one at the
end: a model that has just been unloaded for another is never loaded before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from llama_gguf.gateway.residency.model_state import ModelState, Rules
from llama_gguf.states import Residency

_SHORTEST_LOAD_SECONDS = 0.1  # below, the difference is noise


def waiting_since(model: ModelState, now: float) -> float:
    """Return since when the oldest of its waiting requests waits."""
    return now if model.oldest_waiting_since is None else model.oldest_waiting_since


def _last_turn(model: ModelState) -> float:
    return max(model.last_used, model.loaded_at, model.since)


def due_at(model: ModelState, rules: Rules, now: float) -> float:
    """Return when it has waited too long: since its oldest request came, or since its last turn."""
    return max(waiting_since(model, now), _last_turn(model)) + rules.max_age_seconds


def by_turn(candidates: Iterable[ModelState], rules: Rules, now: float) -> list[ModelState]:
    """Return the models that wait to be loaded, first whose turn it is."""
    candidates = list(candidates)
    oldest = min((waiting_since(model, now) for model in candidates), default=now)

    def place(model: ModelState) -> tuple[int, float, float, str]:
        since = waiting_since(model, now)
        if _last_turn(model) > oldest:
            return 2, _last_turn(model), since, model.name
        if now >= due_at(model, rules, now):
            return 0, since, 0.0, model.name
        return 1, -model.waiting / max(model.load_seconds, _SHORTEST_LOAD_SECONDS), since, model.name

    return sorted(candidates, key=place)


def gives_way_at(resident: ModelState, other: ModelState, rules: Rules, now: float) -> float:
    """Return from when a loaded model has to give way to another that waits.

    An idle one at once. One with requests when it has served for a while, which is no less than the time that the swap
    there and back costs, and has let in what queued for it before it was loaded, if that queued before the other's;
    for the latter the other waits no longer than until it is due.
    """
    if resident.idle:
        return resident.loaded_at
    swap_seconds = min(resident.load_seconds + other.load_seconds, rules.max_age_seconds)
    served = resident.loaded_at + max(rules.min_resident_seconds, swap_seconds)
    oldest = waiting_since(resident, now)
    if resident.waiting and oldest < min(resident.loaded_at, waiting_since(other, now)):
        return max(served, due_at(other, rules, now))
    return served


def by_eviction(models: Iterable[ModelState]) -> list[ModelState]:
    """Return models by who gives way first.

    First those that can be unloaded at once, least recently used first; then those that drain already; then the busy,
    longest loaded first.
    """

    def place(model: ModelState) -> tuple[int, float, str]:
        draining = model.state is Residency.DRAINING
        if model.idle or (draining and not model.running):
            return 0, max(model.last_used, model.loaded_at), model.name
        return 1 if draining else 2, model.loaded_at, model.name

    return sorted(models, key=place)
