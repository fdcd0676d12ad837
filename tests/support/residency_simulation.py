"""Engines that exist on paper: they load, fail, turn out larger, serve and crash on a virtual clock, as a policy says.

The driver here does what the gateway's does, without processes: it asks `decide` after every event and at the times of
`next_check`. It checks each action against the state that it finds, and the memory after each.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from llama_gguf.gateway.residency.model_state import Action, Budget, ModelState, Need, Rules
from llama_gguf.gateway.residency.policy import can_come, decide, next_check
from llama_gguf.states import Residency

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0)


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way. `seconds` is how long the engine takes for it."""

    model: str
    since: float
    seconds: float
    waiting: bool = True


@dataclass(slots=True)
class Engine:
    """One model, what it really needs and takes, and its requests."""

    state: ModelState
    slots: int
    real_need: Need
    real_load_seconds: float
    unload_seconds: float
    failing_loads: int = 0
    failures: int = 0
    queue: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    starved_since: float | None = None  # waits without being loaded
    generation: int = 0  # of its process
    turns: list[float] = field(default_factory=list)  # when each load ended


class Simulation:
    """Run a schedule of arrivals to its end."""

    def __init__(self, engines: list[Engine], budget: Budget, rules: Rules, chance: random.Random) -> None:
        self.engines = {engine.state.name: engine for engine in engines}
        self.budget = budget
        self.rules = rules
        self.now = 0.0
        self.served = 0
        self.given_up = 0
        self.evictions = 0
        self.longest_starving = 0.0
        self.log: list[tuple[float, Action]] = []
        self._chance = chance
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._check_at: float | None = None

    @property
    def states(self) -> list[ModelState]:
        return [engine.state for engine in self.engines.values()]

    def at(self, time: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, event))

    def run(self, until: float) -> None:
        """Let everything happen that happens before `until`."""
        while (self._events and self._events[0][0] <= until) or (self._check_at or until) < until:
            event_at = self._events[0][0] if self._events else until
            if self._check_at is not None and self._check_at < event_at:
                self._between(self._check_at)
                self.now = self._check_at
            else:
                self._between(event_at)
                self.now, _, event = heapq.heappop(self._events)
                event()
            self._decide()
        self.now = max(self.now, until)

    def _between(self, time: float) -> None:
        """Nothing to do between two events, other than at the time that `next_check` named."""
        moment = self.now + (time - self.now) * self._chance.random()
        if self.now < moment < time and self._chance.random() < 0.3:
            assert decide(self.states, self.budget, self.rules, moment) == [], "next_check left something out"

    # --- what clients do -----------------------------------------------------------------------------------------

    def arrive(self, model: str, seconds: float, patience: float | None) -> None:
        engine = self.engines[model]
        request = Request(model, self.now, seconds)
        engine.queue.append(request)
        if patience is not None:
            self.at(self.now + patience, lambda: self._give_up(engine, request))
        self._serve(engine)

    def _give_up(self, engine: Engine, request: Request) -> None:
        if request.waiting:
            request.waiting = False
            engine.queue.remove(request)
            self.given_up += 1
            self._serve(engine)

    def pin(self, model: str, *, pinned: bool) -> None:
        self.engines[model].state.pinned = pinned

    def heal(self) -> None:
        """From here on nothing is pinned and loads succeed, after one more failure at most."""
        for engine in self.engines.values():
            engine.state.pinned = False
            engine.failing_loads = min(engine.failing_loads, 1)

    def request_unload(self, model: str) -> None:
        if self.engines[model].state.resident:
            self.engines[model].state.unload_requested = True

    def crash(self, model: str) -> None:
        engine = self.engines[model]
        if engine.state.state in (Residency.LOADED, Residency.DRAINING):
            engine.running.clear()
            self._failed(engine)

    # --- what engines do -----------------------------------------------------------------------------------------

    def _serve(self, engine: Engine) -> None:
        state = engine.state
        while state.state is Residency.LOADED and engine.queue and len(engine.running) < engine.slots:
            request = engine.queue.pop(0)
            request.waiting = False
            engine.running.append(request)
            state.last_used = self.now
            self.at(self.now + request.seconds, lambda request=request: self._finish(engine, request))  # type: ignore[misc]
        state.waiting = len(engine.queue)
        state.oldest_waiting_since = engine.queue[0].since if engine.queue else None
        state.running = len(engine.running)
        self._note_starving(engine)

    def _note_starving(self, engine: Engine) -> None:
        state = engine.state
        others = [other for other in self.states if other is not state and (other.pinned or other.always)]
        hopeless = not can_come(state, [_loaded(other) for other in others], self.budget)
        starving = bool(engine.queue) and state.state is not Residency.LOADED and not hopeless
        if engine.starved_since is not None:
            self.longest_starving = max(self.longest_starving, self.now - engine.starved_since)
        if not starving:
            engine.starved_since = None
        elif engine.starved_since is None:
            engine.starved_since = self.now

    def _finish(self, engine: Engine, request: Request) -> None:
        if request in engine.running:
            engine.running.remove(request)
            engine.state.last_used = self.now
            self.served += 1
            self._serve(engine)

    def _failed(self, engine: Engine) -> None:
        engine.generation += 1
        engine.failures += 1
        self._enter(engine, Residency.FAILED)
        engine.state.retry_at = self.now + BACKOFF_SECONDS[min(engine.failures, len(BACKOFF_SECONDS)) - 1]
        engine.state.unload_requested = False
        engine.starved_since = None  # what follows is not the policy's fault
        self._serve(engine)

    def _ready(self, engine: Engine, generation: int) -> None:
        if engine.generation != generation:
            return
        if engine.failing_loads:
            engine.failing_loads -= 1
            self._failed(engine)
            return
        state = engine.state
        self._enter(engine, Residency.LOADED)
        state.load_seconds = engine.real_load_seconds
        state.need = engine.real_need
        state.loaded_at = self.now
        state.retry_at = None
        engine.failures = 0
        engine.turns.append(self.now)
        self._serve(engine)

    def _unloaded(self, engine: Engine) -> None:
        self._enter(engine, Residency.UNLOADED)
        engine.state.unload_requested = False
        self._serve(engine)

    def _enter(self, engine: Engine, residency: Residency) -> None:
        engine.state.state = residency
        engine.state.since = self.now

    # --- what the driver does ------------------------------------------------------------------------------------

    def _decide(self) -> None:
        for _ in range(3):
            actions = self._checked_decision()
            if not actions:
                break
            was = self._within()
            for action in actions:
                self._apply(action)
                self.log.append((self.now, action))
            assert self._within() or not was, f"beyond the budget after {actions}"
        else:
            raise AssertionError(f"no end of decisions at {self.now}: {self.log[-8:]}")
        if not self._within():
            leaving = [state for state in self.states if state.state in (Residency.DRAINING, Residency.UNLOADING)]
            assert leaving or not any(state.evictable for state in self.states), "nobody gives memory back"
        self._check_at = next_check(self.states, self.rules, self.now)
        assert self._check_at is None or self._check_at > self.now

    def _checked_decision(self) -> list[Action]:
        """The same models in any order, twice: the same decision, and they are as before."""
        if self._chance.random() > 0.1:
            return decide(self.states, self.budget, self.rules, self.now)
        before = copy.deepcopy(self.states)
        actions = decide(self.states, self.budget, self.rules, self.now)
        assert self.states == before
        shuffled = self._chance.sample(before, len(before))
        assert decide(shuffled, self.budget, self.rules, self.now) == actions
        return actions

    def _within(self) -> bool:
        needs = [state.need for state in self.states if state.resident]
        used = Need(sum(need.device for need in needs), sum(need.host for need in needs))
        return (self.budget.device is None or used.device <= self.budget.device) and (
            self.budget.host is None or used.host <= self.budget.host
        )

    def _apply(self, action: Action) -> None:
        engine = self.engines[action.name]
        state = engine.state
        if action.kind == "load":
            assert state.state in (Residency.UNLOADED, Residency.FAILED)
            assert state.waiting, "nobody waits for it"
            assert state.retry_at is None or state.retry_at <= self.now
            assert not any(other.state is Residency.LOADING for other in self.states)
            self._enter(engine, Residency.LOADING)
            engine.generation += 1
            generation = engine.generation
            self.at(self.now + engine.real_load_seconds, lambda: self._ready(engine, generation))
            assert self._within(), f"loads {action.name} beyond the budget"
        elif action.kind == "drain":
            assert state.state is Residency.LOADED
            self._check_fairness(engine, action)
            self._enter(engine, Residency.DRAINING)
        elif action.kind == "unload":
            assert state.state is Residency.DRAINING
            assert not engine.running, "a request is in it"
            self._enter(engine, Residency.UNLOADING)
            self.at(self.now + engine.unload_seconds, lambda: self._unloaded(engine))
        else:
            assert state.state is Residency.DRAINING
            self._enter(engine, Residency.LOADED)
        self._serve(engine)

    def _check_fairness(self, engine: Engine, action: Action) -> None:
        """Who gives way to another, and when."""
        state = engine.state
        if not action.reason.startswith("gives way to "):
            assert not state.pinned or state.unload_requested or not self._within()
            return
        assert not state.pinned
        assert not state.always
        self.evictions += 1
        other = self.engines[action.reason.removeprefix("gives way to ")]
        assert other.queue, "nobody waits for the one that it gives way to"
        if engine.running or engine.queue:
            assert self.now - state.loaded_at >= self.rules.min_resident_seconds - 1e-6
            early = [request for request in engine.queue if request.since < state.loaded_at]
            first = [request for request in early if request.since < other.queue[0].since]
            assert not first or self.now - other.queue[0].since >= self.rules.max_age_seconds - 1e-6


def _loaded(state: ModelState) -> ModelState:
    changed = copy.copy(state)
    changed.state = Residency.LOADED
    return changed
