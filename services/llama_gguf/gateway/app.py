"""The composition root of the gateway: creates all parts and passes each its collaborators.

`Gateway` owns their lifetimes; every part gets what it needs through its constructor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import BinaryIO

from llama_gguf import __version__
from llama_gguf.audit import AuditLog
from llama_gguf.errors import KeysError
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.routes import RouteTable
from llama_gguf.gateway.builtin_routes import BuiltinRoutes
from llama_gguf.gateway.http1.connection import HttpServer
from llama_gguf.gateway.http1.deadlines import DeadlineChecker
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.inference import InferenceRoutes, Rules
from llama_gguf.gateway.inputs import RuntimeInputs, http_limits
from llama_gguf.gateway.ratelimit.factory import open_store
from llama_gguf.gateway.ratelimit.intake import Intake
from llama_gguf.gateway.ratelimit.limiter import RateLimiter
from llama_gguf.gateway.relay.engine_usage import EngineUsage
from llama_gguf.gateway.relay.response_relay import ResponseTimeouts
from llama_gguf.gateway.relay.settlement import Settlement
from llama_gguf.gateway.relay.upstream_call import UpstreamCaller
from llama_gguf.gateway.request.constraints.schemas import SchemaLimits
from llama_gguf.gateway.request.content.media import MediaRules
from llama_gguf.gateway.request.meaning import MeaningRules
from llama_gguf.gateway.request.reader import RequestReader
from llama_gguf.gateway.scheduling.admission import Admission
from llama_gguf.gateway.telemetry.access_log import AccessLog
from llama_gguf.gateway.telemetry.engine_series import EngineSeries
from llama_gguf.gateway.telemetry.metrics import Metrics
from llama_gguf.gateway.telemetry.recorder import Recorder
from llama_gguf.gateway.telemetry.usage_store import UsageStore
from llama_gguf.gateway.upstream.client import EngineClient, fetch
from llama_gguf.gateway.upstream.engine_description import EngineDescription
from llama_gguf.gateway.upstream.engine_features import EngineFeatures
from llama_gguf.gateway.upstream.monitor import EngineMonitor
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.keys.watcher import KeyState, KeyWatcher
from llama_gguf.logs import fields
from llama_gguf.models.source import served_names
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.states import EngineState, ServiceState

from .pipeline import Access, Pipeline

_log = logging.getLogger(__name__)

_ENGINE_METRICS_SECONDS = 2.0
_ABORT_SECONDS = 2.0
_COUNTING_PLACES = 2


class Gateway:
    """The gateway without its listening sockets. Create, start and stop it on one event loop."""

    def __init__(self, snapshot: Snapshot, inputs: RuntimeInputs, *, access_stream: BinaryIO | None = None) -> None:
        settings, locations = snapshot.settings, snapshot.locations
        self._settings = settings
        self._engine_key = inputs.engine_key
        self.metrics = Metrics(
            version=__version__,
            engine_version=inputs.engine_version,
            instance_id=settings.logging.instance_id or inputs.host_name,
            worker_type=settings.logging.worker_type,
            key_label=settings.metrics.key_label,
        )
        self.deadlines = DeadlineChecker()
        write_batch = WriteBatch()
        self.client = EngineClient(
            locations.run.engine_socket, write_batch, connect_timeout=settings.gateway.timeouts.connect_seconds
        )
        self.engine = EngineMonitor(
            self.client,
            locations.run.engine_phase,
            failure_file=locations.run.failure,
            variant_file=locations.run.engine_variant,
            on_change=self.metrics.engine_state,
            on_restart=self.metrics.engine_restarted,
        )
        self.keys = KeyWatcher(
            locations.keys_file, interval_seconds=settings.auth.reload_interval_seconds, on_change=self._keys_changed
        )
        self.admission = Admission(
            settings.limits.max_in_flight or settings.engine.slots,
            settings.limits.queue,
            on_rejected=self.metrics.queue_rejected,
        )
        # Counting and tokenizing need no slot, but the same processors.
        self.counting = Admission(_COUNTING_PLACES, settings.limits.queue, on_rejected=self.metrics.queue_rejected)
        self.usage = UsageStore(locations.usage_file)
        self.limiter = RateLimiter(
            settings.limits,
            open_store(
                settings.limits,
                inputs.store_password,
                month_tokens=self.usage.month_tokens,
                on_state=self.metrics.limit_store,
                on_failure=self.metrics.limit_store_failed,
            ),
            on_refused=self.metrics.limited,
        )
        self.audit = AuditLog(locations.audit_file)
        self._engine_series = EngineSeries(self._fetch_engine_series)
        self._access_log = AccessLog(access_stream or sys.stdout.buffer, format=settings.logging.format)
        self._recorder = Recorder(self.metrics, self.usage, self._access_log if settings.logging.access_log else None)
        self.engine_usage = EngineUsage(self.client, self.engine, self._engine_key)
        self.settlement = Settlement(self.engine_usage, self.metrics.mean_speed)
        self.inference = self._make_inference()
        self.pipeline = self._make_pipeline()
        self.http_server = HttpServer(
            self.pipeline, http_limits(settings), write_batch, extra_singleton=self._extra_header
        )
        self.draining = False
        self._watch()

    @property
    def _extra_header(self) -> bytes | None:
        name = self._settings.auth.extra_header
        return name.lower().encode("ascii") if name else None

    def _watch(self) -> None:
        admission, usage = self.admission, self.usage
        self.metrics.watch_queue(lambda: (admission.active, admission.waiting, admission.capacity))
        self.metrics.watch_requests(lambda: self.pipeline.in_flight - 1)  # without the scrape itself
        self.metrics.watch_cpu_variant(self._cpu_variant)
        self.metrics.watch_usage(lambda: usage.write_failures)

    def _cpu_variant(self) -> tuple[str, int]:
        found = self.engine.variant
        return (found.variant, len(found.rejected_names)) if found else ("", 0)

    def _make_reader(self) -> RequestReader:
        settings, bounds = self._settings, self._settings.limits.request
        projector = settings.model.mmproj is not None or any("mmproj" in arg for arg in settings.engine.extra_args)
        rules = MeaningRules(
            media=MediaRules(
                supported=projector,
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
        choices = min(bounds.max_choices, settings.engine.slots)
        return RequestReader(rules, max_choices=choices, max_depth=bounds.max_nesting)

    def _make_inference(self) -> InferenceRoutes:
        settings = self._settings
        timeouts = settings.gateway.timeouts
        rules = Rules(
            served_models=served_names(settings.model),
            keepalive_seconds=settings.gateway.sse_keepalive_seconds,
            context=settings.engine.context_per_slot,
            generates_text=settings.engine.task == "generate",
            cache_by_key=settings.limits.cache_isolation == "key",
            audio=settings.model.mmproj is not None or settings.engine.allow_unsafe_args,
        )
        return InferenceRoutes(
            rules,
            reader=self._make_reader(),
            caller=UpstreamCaller(
                self.client,
                self.engine,
                timeouts=ResponseTimeouts(timeouts.first_byte_seconds, timeouts.idle_seconds, timeouts.total_seconds),
                wait_for_engine_seconds=settings.gateway.wait_for_engine_seconds,
            ),
            models=EngineDescription(self.client, self.engine, self._engine_key, "/v1/models"),
            props=EngineDescription(self.client, self.engine, self._engine_key, "/props"),
            engine_key=self._engine_key,
            admission=self.admission,
            counting=self.counting,
            features=EngineFeatures(self.client, self._engine_key),
            has_many_keys=lambda: len(self.keys.ring) > 1,
            limiter=self.limiter,
            settlement=self.settlement,
            usage_prefix=self.engine_usage.id_prefix,
            deadlines=self.deadlines,
            audit=self._write_audit,
        )

    def _make_pipeline(self) -> Pipeline:
        settings = self._settings
        return Pipeline(
            routes=RouteTable(
                settings.gateway.routes,
                metrics_need_key=settings.metrics.require_key is not False,
                metrics_enabled=settings.metrics.enabled,
            ),
            access=Access(
                settings.auth.enabled,
                self.keys,
                time.time,
                self._extra_header,
                local_metrics=settings.metrics.require_key is None,
            ),
            cors=Cors(settings.gateway.cors.allow_origins, settings.gateway.cors.max_age_seconds),
            inference=self.inference,
            builtin=BuiltinRoutes(
                health=self.health,
                metrics=self._metrics_text,
                reload_keys=self.keys.reload_now,
                audit=self._write_audit,
            ),
            recorder=self._recorder,
            intake=Intake(
                settings.limits, max_body_bytes=settings.gateway.max_body_bytes, on_refused=self.metrics.limited
            ),
        )

    async def _metrics_text(self, accept: bytes) -> tuple[str, bytes]:
        engine_text = None
        if self._settings.metrics.engine_series and self.engine.state is EngineState.READY:
            engine_text = await self._engine_series.text()
        self._recorder.flush()
        body, media_type = self.metrics.render(accept.decode("latin-1"), engine_text)
        return media_type, body

    async def _fetch_engine_series(self) -> bytes | None:
        """Fetch the engine's own series, None if it does not respond. A sleeping engine responds from memory."""
        request = engine_request(engine_head("GET", "/metrics", self._engine_key), b"", b"")
        try:
            status, text = await fetch(self.client, request, _ENGINE_METRICS_SECONDS)
        except EngineFailure as failure:
            _log.debug("cannot fetch the engine's metrics", extra=fields(reason=str(failure)))
            return None
        return text if status == 200 else None

    def _keys_changed(self, state: KeyState) -> None:
        self.metrics.keys_reloaded(state.error is None)

    async def _write_audit(self, actor: str, action: str, target: str) -> None:
        await asyncio.to_thread(self.audit.append, actor=actor, action=action, target=target)

    def health(self) -> dict[str, object]:
        """Return the body of /health: states and the queue's counts; of the keys only whether the file is valid."""
        own = ServiceState.DRAINING if self.draining else ServiceState.READY
        return {
            "status": ServiceState.DRAINING if self.draining else self.engine.service_state,
            "engine": {
                "status": self.engine.state,
                "restarts": self.engine.restarts,
                "cpu_variant": engine_variant.summary(self.engine.variant),
            },
            "gateway": {"status": own, "in_flight": self.pipeline.in_flight - 1},  # without this one
            "queue": {
                "max": self.admission.capacity,
                "active": self.admission.active,
                "waiting": self.admission.waiting,
            },
            "auth": {"enabled": self._settings.auth.enabled, "keys_ok": self.keys.state.error is None},
        }

    async def reload_keys(self) -> None:
        """Reload the keys file (SIGHUP). If it cannot be used, the previous keys stay; the watcher has logged it."""
        with contextlib.suppress(KeysError):
            await self.keys.reload_now()

    def protocol(self) -> asyncio.Protocol:
        """Create the protocol of a new connection."""
        return self.http_server()

    async def _finished(self) -> None:
        """Wait until every request has ended and every connection is closed, its response sent."""
        await self.pipeline.idle()
        await self.http_server.wait_closed()

    async def drain(self, seconds: float, force_stop: asyncio.Event) -> None:
        """Wait until all requests have ended, `seconds` have passed or `force_stop` is set."""
        self.draining = True
        self.http_server.drain()
        stops = [asyncio.ensure_future(self._finished()), asyncio.ensure_future(force_stop.wait())]
        await asyncio.wait(stops, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for stop in stops:
            stop.cancel()
        if self.pipeline.in_flight:
            _log.warning("aborting in-flight requests", extra=fields(in_flight=self.pipeline.in_flight))

    async def start(self) -> None:
        """Start all background work."""
        await asyncio.to_thread(self.usage.open)
        self._access_log.start()
        self.deadlines.start()
        self.deadlines.add(self.client)
        self.deadlines.add(self.http_server)
        if self._settings.auth.enabled:
            await self.keys.start()
        await self.engine.start()

    async def stop(self) -> None:
        """Stop everything; requests that are still in flight are aborted."""
        self.http_server.abort_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self.pipeline.idle()
        await self.settlement.close()
        await self.engine.stop()
        await self.keys.stop()
        self.deadlines.stop()
        self.client.close()
        await self.limiter.aclose()
        self._recorder.flush()
        await asyncio.to_thread(self.usage.close)
        await self._access_log.stop()
