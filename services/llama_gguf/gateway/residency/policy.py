"""What is to be loaded and unloaded now, from what is loaded, used and waited for. Pure.

Every call decides from scratch; what an earlier one began is seen in the states of the models. So a client that gives
up, a load that fails or a model that needs more memory than planned need no handling of their own: the next decision
is made from what is then the case.

What holds of every answer: memory in use and memory asked for stay within the budget, where what is loaded does; only
a model without a request in it is unloaded, and only after no new one could enter; one load at a time, since two share
the disk and both come later. Which of the waiting models comes first is decided by `by_turn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llama_gguf.gateway.residency.model_state import Action, Budget, ModelState, Need, Rules
from llama_gguf.gateway.residency.room import choose_victims, fits
from llama_gguf.gateway.residency.turns import by_eviction, by_turn, due_at, gives_way_at
from llama_gguf.states import Residency


def decide(models: Sequence[ModelState], budget: Budget, rules: Rules, now: float) -> list[Action]:
    """Return what to do now, in this order. Calls with the same arguments return the same."""
    models = sorted(models, key=lambda model: model.name)
    plan = _Plan(models, [model for model in models if model.resident], budget, rules, now)
    plan.let_go()
    plan.get_within_budget()
    plan.make_room()
    return [*plan.departures(), *plan.loads()]


def next_check(models: Sequence[ModelState], rules: Rules, now: float) -> float | None:
    """Return when `decide` can have something new to say without anything having happened; None = never."""
    times = [idle_at for model in models if (idle_at := _idle_at(model)) is not None]
    waiting = [model for model in models if model.waiting and not model.resident]
    times += [model.retry_at for model in waiting if model.retry_at is not None]
    for other in waiting:
        times.append(due_at(other, rules, now))
        times += [gives_way_at(model, other, rules, now) for model in models if model.evictable]
    return min((time for time in times if time > now), default=None)


def can_come(model: ModelState, models: Iterable[ModelState], budget: Budget) -> bool:
    """Return whether a model fits beside what is in memory and gives way to nobody."""
    staying = [other.need for other in models if other.resident and (other.pinned or other.always)]
    return fits(budget, [model.need, *staying])


def _idle_at(model: ModelState) -> float | None:
    """Return when a model is to be unloaded because nobody uses it."""
    if model.state is not Residency.LOADED or model.pinned or model.unload_after is None or not model.idle:
        return None
    return max(model.last_used, model.loaded_at) + model.unload_after


@dataclass(slots=True)
class _Plan:
    """One decision while it is made."""

    models: Sequence[ModelState]
    residents: Sequence[ModelState]
    budget: Budget
    rules: Rules
    now: float
    leaving: dict[str, str] = field(default_factory=dict)  # who leaves now -> why
    awaited: set[str] = field(default_factory=set)  # who will leave later, for a model that is due
    coming: list[ModelState] = field(default_factory=list)
    reserved: list[Need] = field(default_factory=list)  # of those that come now and those that are due
    swapping: bool = False  # for one waiting model at a time others are drained
    loading: bool = field(init=False)

    def __post_init__(self) -> None:
        self.loading = any(model.state is Residency.LOADING for model in self.residents)

    def let_go(self) -> None:
        """Whom an operator wants to be unloaded, and whom nobody uses."""
        for model in self.residents:
            if model.unload_requested and model.state in (Residency.LOADED, Residency.DRAINING):
                self.leaving[model.name] = "unload requested"
            elif (idle_at := _idle_at(model)) is not None and self.now >= idle_at:
                self.leaving[model.name] = f"idle for {model.unload_after:g} s"

    def get_within_budget(self) -> None:
        """A model that turned out larger than planned: memory is given back at once, without waiting for turns."""
        staying, evictable = self._staying()
        victims = choose_victims(self.budget, staying, by_eviction(evictable))
        self._evict(victims, "the loaded models use more memory than their budget")

    def make_room(self) -> None:
        """Choose who comes, by turn, and who leaves for them."""
        for model in by_turn(self._candidates(), self.rules, self.now):
            staying, evictable = self._staying()
            if not fits(self.budget, [model.need, *staying, *(other.need for other in evictable)]):
                victims = None if self.swapping else self._victims(model, staying, evictable)
                if victims is None:
                    if self.now >= due_at(model, self.rules, self.now):
                        if self.loading:
                            return  # only when that is there can be told who leaves for the one that is due
                        self._reserve(model, staying, evictable)
                    continue
                self._evict(victims, f"gives way to {model.name}")
            self.coming.append(model)
            self.reserved.append(model.need)

    def departures(self) -> list[Action]:
        """Return who stays after all, and the next step of each that leaves."""
        actions = [
            Action("resume", model.name, "no longer has to give way")
            for model in self.residents
            if model.state is Residency.DRAINING and model.name not in self.leaving
        ]
        for model in self.residents:
            if (reason := self.leaving.get(model.name)) is None:
                continue
            if model.state is Residency.LOADED:
                actions.append(Action("drain", model.name, reason))
            if not model.running:
                actions.append(Action("unload", model.name, reason))
        return actions

    def loads(self) -> list[Action]:
        """Return the load that begins now, if one does."""
        if self.loading:
            return []
        after_running = [model.need for model in self.residents if model.running or not self._leaves(model)]
        for model in self.coming:
            if fits(self.budget, [model.need, *(resident.need for resident in self.residents)]):
                return [Action("load", model.name, f"{model.waiting} waiting")]
            if fits(self.budget, [model.need, *after_running]):
                return []  # its room is free in a moment: another's load would hold it up for longer
        return []

    def _candidates(self) -> list[ModelState]:
        return [
            model
            for model in self.models
            if model.waiting
            and not model.resident
            and (model.retry_at is None or self.now >= model.retry_at)
            and can_come(model, self.residents, self.budget)
        ]

    def _leaves(self, model: ModelState) -> bool:
        return model.state is Residency.UNLOADING or model.name in self.leaving

    def _staying(self) -> tuple[list[Need], list[ModelState]]:
        """Return what is taken for good, and the models that could still be made to leave."""
        remaining = [model for model in self.residents if not self._leaves(model) and model.name not in self.awaited]
        fixed = [model.need for model in remaining if not model.evictable]
        return [*fixed, *self.reserved], [model for model in remaining if model.evictable]

    def _victims(
        self, model: ModelState, staying: Sequence[Need], evictable: Sequence[ModelState]
    ) -> list[ModelState] | None:
        """Return who leaves for a model now, None if that would not be enough."""
        allowed, needed = [], [model.need, *staying]
        for other in evictable:
            if self._gives_way(other, model):
                allowed.append(other)
            else:
                needed.append(other.need)
        if not fits(self.budget, needed):
            return None
        return choose_victims(self.budget, needed, by_eviction(allowed))

    def _gives_way(self, resident: ModelState, other: ModelState) -> bool:
        if self.loading and resident.state is Residency.LOADED and not resident.idle:
            return False  # it can serve until that load has ended
        return self.now >= gives_way_at(resident, other, self.rules, self.now)

    def _reserve(self, model: ModelState, staying: Sequence[Need], evictable: Sequence[ModelState]) -> None:
        """Keep later ones from taking the room of one that is due, and from making others leave before it does."""
        needed = [model.need, *staying]
        if fits(self.budget, needed):
            victims = choose_victims(self.budget, needed, by_eviction(evictable))
            self.awaited.update(victim.name for victim in victims)
            self.reserved.append(model.need)
            self.swapping = True

    def _evict(self, victims: Sequence[ModelState], reason: str) -> None:
        self.leaving.update((victim.name, reason) for victim in victims)
        self.swapping = self.swapping or bool(victims)
