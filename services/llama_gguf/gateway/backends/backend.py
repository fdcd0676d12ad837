"""One model behind the gateway: the client of its engine, its queue, its rules, and what is known of it.

Holds no request; `inference` uses the parts in their order.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.relay.engine_usage import EngineUsage
from llama_gguf.gateway.relay.response_relay import ResponseTimeouts
from llama_gguf.gateway.relay.settlement import Settlement
from llama_gguf.gateway.relay.upstream_call import UpstreamCaller
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits
from llama_gguf.gateway.request.content.media import MediaRules
from llama_gguf.gateway.request.meaning import MeaningRules
from llama_gguf.gateway.request.model_rules import ModelRules, joined
from llama_gguf.gateway.request.reader import ReadingRules, RequestContent
from llama_gguf.gateway.request.refusal import refusal
from llama_gguf.gateway.scheduling.admission import Admission
from llama_gguf.gateway.telemetry.metrics import Metrics, ModelProbes
from llama_gguf.gateway.upstream.client import EngineClient
from llama_gguf.gateway.upstream.engine_description import EngineDescription
from llama_gguf.gateway.upstream.engine_features import EngineFeatures
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.models.source import served_names
from llama_gguf.rundir import engine_values
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings.one_model import OneModel
from llama_gguf.settings.sections.engine_parts.auto import automatic, known
from llama_gguf.states import EngineState, Residency

if TYPE_CHECKING:
    from llama_gguf.settings import Settings
    from llama_gguf.settings.sections.model import Model, Variant

_COUNTING_PLACES = 2


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests of one model now. `running` ones are in the engine, `waiting` ones in its queues."""

    running: int
    waiting: int
    oldest_waiting_since: float | None  # monotonic
    last_used: float  # monotonic


class ModelBackend:
    """One model and its engine. Belongs to one event loop."""

    def __init__(
        self, one: OneModel, snapshot: Snapshot, engine_key: str, *, metrics: Metrics, write_batch: WriteBatch
    ) -> None:
        settings = one.settings
        run = snapshot.locations.of_engine(one.program).run
        timeouts = settings.gateway.timeouts
        self.one = one
        self.engine_key = engine_key
        self.names = served_names(settings.model)
        self.name = self.names[0]
        # None and 0: not known before the engine has chosen them.
        self.slots = self._configured_slots = known(settings.engine.slots)
        self.context = self._configured_context = known(settings.engine.context_per_slot) or 0
        self._most_choices = settings.limits.request.max_choices
        self.task = settings.engine.task
        self.generates_text = self.task == "generate"
        self.audio = settings.model.mmproj is not None or settings.engine.allow_unsafe_args
        self.modalities = ("text", "image") if _has_projector(settings) else ("text",)
        self.variants = {name: reading_rules(settings, variant) for name, variant in settings.model.variants.items()}
        self.reading = reading_rules(settings)
        self.client = EngineClient(run.engine_socket, write_batch, connect_timeout=timeouts.connect_seconds)
        failures = [run.failure] if one.required else [run.failure, run.engine_failure]
        self.engine = EngineMonitor(
            self.client,
            run.engine_phase,
            failure_files=failures,
            variant_file=run.engine_variant,
            on_restart=functools.partial(metrics.engine_restarted, self.name),
            on_process=self._use_its_values if settings.engine.shrink.steps or automatic(settings.engine) else None,
        )
        self.caller = UpstreamCaller(
            self.client,
            self.engine,
            timeouts=ResponseTimeouts(timeouts.first_byte_seconds, timeouts.idle_seconds, timeouts.total_seconds),
            wait_for_engine_seconds=settings.gateway.wait_for_engine_seconds,
        )
        self._on_change: Callable[[], None] | None = None
        self._opens_in: Callable[[], float] | None = None
        self._refusal: Callable[[], GatewayError | None] | None = None
        self.managed: Residency | None = None  # what the gateway does about it; None: it always stays loaded
        self.load_seconds = 0.0
        self.planned_bytes = (0, 0)  # on GPUs, in main memory
        self.direct = 0  # requests in the engine that hold no slot: an operator's
        rejected = functools.partial(metrics.queue_rejected, self.name)
        self._max_in_flight = settings.limits.max_in_flight
        self._run = run

        def queue(places: int) -> Admission:
            return Admission(
                places,
                settings.limits.queue,
                on_rejected=rejected,
                opens_in=self.opens_in,
            )

        self.admission = queue(self._max_in_flight or self.slots or 1)
        # Counting and tokenizing need no slot, but the same processors.
        self.counting = queue(_COUNTING_PLACES)
        self.models = EngineDescription(self.client, self.engine, engine_key, "/v1/models")
        self.props = EngineDescription(self.client, self.engine, engine_key, "/props")
        self.features = EngineFeatures(self.client, engine_key)
        self.usage = EngineUsage(self.client, self.engine, engine_key)
        every_name = frozenset((*self.names, *self.variants))
        self.settlement = Settlement(self.usage, functools.partial(metrics.mean_speed, every_name))
        self.usage_numbers = itertools.count(1)
        metrics.watch_model(
            self.name,
            ModelProbes(
                queue=lambda: (self.admission.active, self.admission.waiting, self.admission.capacity),
                engine=lambda: self.engine.state,
                cpu_variant=self._cpu_variant,
                planned=lambda: self.planned_bytes,
                load_seconds=lambda: self.load_seconds,
            ),
        )

    async def _use_its_values(self) -> None:
        """Count with the slots and the context that the engine has: with auto and shrink they are not as configured."""
        found = await asyncio.to_thread(engine_values.in_force, self._run)
        slots, context = _count(found.get("slots")), _count(found.get("context_per_slot"))
        self.context = context or self._configured_context
        self.slots = slots or self._configured_slots
        places = self._max_in_flight or self.slots or 1
        self.admission.resize(min(places, slots) if slots else places)

    def check_choices(self, content: RequestContent) -> None:
        """Raise GatewayError if a request asks for more choices than the engine has slots now."""
        most = min(self._most_choices, self.slots or self._most_choices)
        if content.choices > most:
            name = "n" if "n" in content.fields else "n_cmpl"
            raise refusal(name, f"must not be more than {most}, the slots that the engine has now.")

    def _cpu_variant(self) -> tuple[str, int]:
        found = self.engine.variant
        return (found.variant, len(found.rejected_names)) if found else ("", 0)

    @property
    def residency(self) -> Residency:
        """Whether the model is in memory."""
        if self.managed is not None:
            return self.managed
        return _RESIDENCY[self.engine.state]

    @property
    def demand(self) -> Demand:
        """The requests of this model now."""
        queues = (self.admission, self.counting)
        since = [queue.oldest_waiting_since for queue in queues]
        return Demand(
            running=sum(queue.active for queue in queues) + self.direct,
            waiting=sum(queue.waiting for queue in queues),
            oldest_waiting_since=min((one for one in since if one is not None), default=None),
            last_used=time.monotonic() if self.direct else max(queue.last_used for queue in queues),
        )

    def watch(self, on_change: Callable[[], None], opens_in: Callable[[], float]) -> None:
        """Have somebody load and unload the model.

        `on_change` is called when a request waits for the closed model and when one of its requests has ended;
        `opens_in` returns the seconds until it is expected to open.
        """
        self._on_change, self._opens_in = on_change, opens_in
        self.admission.watch(on_change)
        self.counting.watch(on_change)

    def refuse_with(self, refusal: Callable[[], GatewayError | None] | None) -> None:
        """Refuse requests with the error that `refusal` returns, those that wait now included; None ends that."""
        self._refusal = refusal
        if refusal is not None and (error := refusal()) is not None:
            self.admission.refuse_waiting(error)
            self.counting.refuse_waiting(error)

    @property
    def refuses(self) -> bool:
        """Whether requests may be refused; `check_available` knows."""
        return self._refusal is not None

    def check_available(self) -> None:
        """Raise GatewayError if requests for the model are refused."""
        if self._refusal is not None and (error := self._refusal()) is not None:
            raise error

    def demand_changed(self) -> None:
        """Notify who loads and unloads the model, if anybody does."""
        if self._on_change is not None:
            self._on_change()

    def opens_in(self) -> float:
        """Return the seconds until the closed model is expected to open."""
        return self._opens_in() if self._opens_in is not None else 0.0

    def close(self) -> None:
        """Let no further request into the engine; they wait."""
        self.admission.close()
        self.counting.close()

    def open(self) -> None:
        """Let requests into the engine."""
        self.admission.open()
        self.counting.open()


_RESIDENCY = {
    EngineState.READY: Residency.LOADED,
    EngineState.LOADING: Residency.LOADING,
    EngineState.DOWN: Residency.LOADING,  # supervisord restarts it
    EngineState.UNLOADED: Residency.UNLOADED,
    EngineState.FAILED: Residency.FAILED,
}


def _count(value: object) -> int | None:
    """Return a number that an engine can have; with others of a damaged file nothing would be let in."""
    return value if type(value) is int and value > 0 else None


def reading_rules(settings: Settings, variant: Variant | None = None) -> ReadingRules:
    """Return what bodies of requests for a model, or a variant of it, are read by."""
    bounds = settings.limits.request
    meaning = MeaningRules(
        media=MediaRules(
            supported=_has_projector(settings),
            allow_remote=settings.gateway.allow_remote_media,
            max_items=bounds.max_media,
        ),
        schemas=SchemaLimits(nodes=bounds.max_schemas, depth=bounds.max_schema_depth),
        token_ids=settings.gateway.embedding_token_ids,
        max_tools=bounds.max_tools,
        max_stops=bounds.max_stops,
        max_inputs=bounds.max_inputs,
        max_probabilities=bounds.max_probabilities,
        max_logit_bias=bounds.max_logit_bias,
        max_grammar_characters=bounds.max_grammar_characters,
    )
    rules: ModelRules | None = _operator_rules(settings.model)
    if variant is not None:
        rules = joined(_operator_rules(variant, variant.lora), rules)
    choices = min(bounds.max_choices, known(settings.engine.slots) or bounds.max_choices)
    return ReadingRules(meaning, choices, None if rules is None or rules.empty else rules)


def _has_projector(settings: Settings) -> bool:
    return settings.model.mmproj is not None or any("mmproj" in arg for arg in settings.engine.extra_args)


def _operator_rules(section: Model | Variant, scales: Sequence[float] | None = None) -> ModelRules:
    return ModelRules(
        section.defaults,
        section.max_output_tokens,
        section.max_reasoning_tokens,
        frozenset(section.strip),
        scales,
    )
