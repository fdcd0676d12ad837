"""How long a request for a model that is not loaded waits, and whether it waits in vain. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from llama_gguf.gateway.residency.model_state import Budget, ModelState, Need, Rules
from llama_gguf.gateway.residency.policy import can_come
from llama_gguf.gateway.residency.room import choose_victims, fits
from llama_gguf.gateway.residency.turns import by_eviction, by_turn, gives_way_at
from llama_gguf.states import Residency

_MIB = 1 << 20


def impossible(need: Need, budget: Budget, others: Iterable[ModelState], *, named: bool = True) -> str | None:
    """Return why a model never fits beside those of `others` that never leave, None if it does.

    `named`: with their names, which are not for every client.
    """
    permanent = [other for other in others if other.pinned or (other.always and other.unload_after is None)]
    if fits(budget, [need, *(other.need for other in permanent)]):
        return None
    names = f" ({', '.join(sorted(other.name for other in permanent))})" if named else ""
    problems = []
    for kind, own, limit, used in (
        ("GPU memory", need.device, budget.device, sum(other.need.device for other in permanent)),
        ("main memory", need.host, budget.host, sum(other.need.host for other in permanent)),
    ):
        if limit is not None and own + used > limit:
            beside = f", of which models that are never unloaded use {_text(used)}{names}" if used else ""
            problems.append(f"it needs {_text(own)} of {kind}, the budget is {_text(limit)}{beside}")
    return "; ".join(problems)


def expected_wait(models: Sequence[ModelState], budget: Budget, rules: Rules, name: str, now: float) -> float:
    """Return the seconds until a request for a model that comes now could enter it, infinite if it never could.

    Counted are the loads before it, its own, and how long what is loaded serves before it gives way. How long the
    requests in a model that drains go on is not known and not counted.
    """
    model = next(model for model in models if model.name == name)
    if model.state is Residency.LOADED:
        return 0.0
    if model.state is Residency.LOADING:
        return _remaining(model, now)
    if not can_come(model, models, budget):
        return math.inf
    ready = max((_remaining(other, now) for other in models if other.state is Residency.LOADING), default=0.0)
    residents = [
        _as_loaded(other, now)
        for other in models
        if other.resident and other.name != name and other.state is not Residency.UNLOADING
    ]
    before = [other for other in _waiting(models, now) if other.name != name and can_come(other, models, budget)]
    for waiting in by_turn([*before, _as_waiting(model, now)], rules, now):
        start = max(ready, (waiting.retry_at or now) - now)
        evictable = [other for other in residents if other.evictable]
        staying = [waiting.need, *(other.need for other in residents if not other.evictable)]
        victims = choose_victims(budget, staying, by_eviction(evictable))
        if victims:
            leaves = max(gives_way_at(victim, waiting, rules, now) for victim in victims)
            start = max(start, leaves - now) + rules.unload_seconds
        ready = start + waiting.load_seconds
        if waiting.name == name:
            break
        loaded = replace(waiting, state=Residency.LOADED, loaded_at=now + ready, running=1, waiting=0)
        residents = [loaded, *(other for other in residents if other not in victims)]
    return ready


def _waiting(models: Iterable[ModelState], now: float) -> list[ModelState]:
    return [model for model in models if model.waiting and not model.resident and (model.retry_at or now) <= now]


def _as_waiting(model: ModelState, now: float) -> ModelState:
    """Return the model with one more request; one that is being unloaded has just had its turn."""
    since = now if model.resident else model.since
    oldest = now if model.oldest_waiting_since is None else model.oldest_waiting_since
    return replace(
        model, state=Residency.UNLOADED, since=since, waiting=model.waiting + 1, running=0, oldest_waiting_since=oldest
    )


def _as_loaded(model: ModelState, now: float) -> ModelState:
    """Return what a model that is loading will be: loaded, with those in it that wait for it."""
    if model.state is not Residency.LOADING:
        return model
    return replace(model, state=Residency.LOADED, loaded_at=now + _remaining(model, now), running=1, waiting=0)


def _remaining(model: ModelState, now: float) -> float:
    return max(0.0, model.since + model.load_seconds - now)


def _text(size: int) -> str:
    mebibytes = size / _MIB
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 10_240 else f"{mebibytes:.0f} MiB"
