"""The composition root of the gateway: creates all parts and passes each its collaborators.

`Gateway` owns their lifetimes; every part gets what it needs through its constructor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from llama_gguf import __version__
from llama_gguf.audit import AuditLog
from llama_gguf.errors import KeysError
from llama_gguf.gateway.api.cors import Cors
from llama_gguf.gateway.api.routes import RouteTable
from llama_gguf.gateway.backends.backend import ModelBackend
from llama_gguf.gateway.backends.memory import PlannedMemory, measure, plan_memory
from llama_gguf.gateway.backends.registry import ModelBackends
from llama_gguf.gateway.backends.residency_driver import EngineSwitch, ResidencyDriver
from llama_gguf.gateway.builtin_routes import BuiltinRoutes
from llama_gguf.gateway.http1.connection import HttpServer
from llama_gguf.gateway.http1.deadlines import DeadlineChecker
from llama_gguf.gateway.http1.write_batch import WriteBatch
from llama_gguf.gateway.inference import InferenceRoutes, RelayRules
from llama_gguf.gateway.inputs import RuntimeInputs, http_limits
from llama_gguf.gateway.ratelimit.factory import open_store
from llama_gguf.gateway.ratelimit.intake import Intake
from llama_gguf.gateway.ratelimit.limiter import RateLimiter
from llama_gguf.gateway.request.reader import RequestReader
from llama_gguf.gateway.residency.model_state import Rules
from llama_gguf.gateway.telemetry.access_log import AccessLog
from llama_gguf.gateway.telemetry.engine_series import EngineSeries
from llama_gguf.gateway.telemetry.exposition import with_models
from llama_gguf.gateway.telemetry.metrics import Metrics
from llama_gguf.gateway.telemetry.recorder import Recorder
from llama_gguf.gateway.telemetry.usage_store import UsageStore
from llama_gguf.gateway.upstream.client import fetch
from llama_gguf.gateway.upstream.request import engine_head, engine_request
from llama_gguf.gateway.upstream.response_parser import EngineFailure
from llama_gguf.keys.watcher import KeyState, KeyWatcher
from llama_gguf.logs import fields
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import Supervisord
from llama_gguf.states import EngineState, ServiceState

from .pipeline import Access, Pipeline

_log = logging.getLogger(__name__)

_ENGINE_METRICS_SECONDS = 2.0
_ABORT_SECONDS = 2.0


class Gateway:
    """The gateway without its listening sockets. Create, start and stop it on one event loop.

    `engine_switch` starts and stops engines: supervisord, unless it is given; `plan` says what several models need,
    `measure_process` what the process of one uses, as bytes on GPUs and in main memory.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        inputs: RuntimeInputs,
        *,
        access_stream: BinaryIO | None = None,
        engine_switch: EngineSwitch | None = None,
        plan: Callable[[], Awaitable[PlannedMemory]] = plan_memory,
        measure_process: Callable[[int], tuple[int, int]] = measure,
    ) -> None:
        settings, locations = snapshot.settings, snapshot.locations
        self._settings = settings
        self.metrics = Metrics(
            version=__version__,
            engine_version=inputs.engine_version,
            instance_id=settings.logging.instance_id or inputs.host_name,
            worker_type=settings.logging.worker_type,
            key_label=settings.metrics.key_label,
        )
        self.deadlines = DeadlineChecker()
        write_batch = WriteBatch()
        self.backends = ModelBackends(
            [
                ModelBackend(
                    one, snapshot, inputs.engine_keys[one.program], metrics=self.metrics, write_batch=write_batch
                )
                for one in snapshot.models
            ]
        )
        self.keys = KeyWatcher(
            locations.keys_file, interval_seconds=settings.auth.reload_interval_seconds, on_change=self._keys_changed
        )
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
        self.models = self._make_driver(snapshot, engine_switch, plan, measure_process)
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
        usage = self.usage
        self.metrics.watch_requests(lambda: self.pipeline.in_flight - 1)  # without the scrape itself
        self.metrics.watch_usage(lambda: usage.write_failures)

    def _make_driver(
        self,
        snapshot: Snapshot,
        switch: EngineSwitch | None,
        plan: Callable[[], Awaitable[PlannedMemory]],
        measure_process: Callable[[int], tuple[int, int]],
    ) -> ResidencyDriver | None:
        """Return who loads and unloads the models; None for a single one that stays loaded."""
        if not self.backends.several and self.backends.first.one.unload_after_seconds is None:
            return None
        settings, run = snapshot.settings, snapshot.locations.run
        return ResidencyDriver(
            self.backends.all,
            Rules(settings.memory.max_swap_wait_seconds, settings.memory.min_resident_seconds),
            switch or Supervisord(run.supervisord_socket),
            run,
            metrics=self.metrics,
            plan=plan,
            stop_seconds=settings.supervisor.stop_seconds,
            measure_process=measure_process,
        )

    def _make_inference(self) -> InferenceRoutes:
        settings = self._settings
        return InferenceRoutes(
            RelayRules(
                keepalive_seconds=settings.gateway.sse_keepalive_seconds,
                cache_by_key=settings.limits.cache_isolation == "key",
            ),
            backends=self.backends,
            reader=RequestReader(
                self.backends.first.reading,
                self.backends.reading_rules(),
                max_depth=settings.limits.request.max_nesting,
            ),
            has_many_keys=lambda: len(self.keys.ring) > 1,
            limiter=self.limiter,
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
                models=self.models,
            ),
            recorder=self._recorder,
            intake=Intake(
                settings.limits, max_body_bytes=settings.gateway.max_body_bytes, on_refused=self.metrics.limited
            ),
        )

    async def _metrics_text(self, accept: bytes) -> tuple[str, bytes]:
        engine_text = None
        if self._settings.metrics.engine_series:
            engine_text = await self._engine_series.text()
        self._recorder.flush()
        body, media_type = self.metrics.render(accept.decode("latin-1"), engine_text)
        return media_type, body

    async def _fetch_engine_series(self) -> bytes | None:
        """Fetch the own series of the engines that are ready, None if none responds; no model is loaded for it."""
        ready = [one for one in self.backends.all if one.engine.state is EngineState.READY]
        texts = await asyncio.gather(*(_fetch_series(one) for one in ready))
        found = {one.name: text for one, text in zip(ready, texts, strict=True) if text is not None}
        if self.backends.several:
            return with_models(found)
        return next(iter(found.values()), None)

    def _keys_changed(self, state: KeyState) -> None:
        self.metrics.keys_reloaded(state.error is None)

    async def _write_audit(self, actor: str, action: str, target: str) -> None:
        await asyncio.to_thread(self.audit.append, actor=actor, action=action, target=target)

    def health(self) -> dict[str, object]:
        """Return the body of /health: states and the queue's counts; of the keys only whether the file is valid."""
        own = ServiceState.DRAINING if self.draining else ServiceState.READY
        models = self.backends.all
        first = models[0].engine
        body: dict[str, object] = {
            "status": ServiceState.DRAINING if self.draining else self.backends.service_state,
            "engine": {
                "status": first.state,
                "restarts": first.restarts,
                "cpu_variant": engine_variant.summary(first.variant),
            },
            "gateway": {"status": own, "in_flight": self.pipeline.in_flight - 1},  # without this one
            "queue": {
                "max": sum(one.admission.capacity for one in models),
                "active": sum(one.admission.active for one in models),
                "waiting": sum(one.admission.waiting for one in models),
            },
            "auth": {"enabled": self._settings.auth.enabled, "keys_ok": self.keys.state.error is None},
        }
        if self.backends.several:
            body["models"] = [
                {
                    "name": one.name,
                    "state": one.residency,
                    "restarts": one.engine.restarts,
                    "active": one.admission.active,
                    "waiting": one.admission.waiting,
                }
                for one in models
            ]
        return body

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
        if self.models is not None:
            self.models.drain()
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
        for one in self.backends.all:
            self.deadlines.add(one.client)
        self.deadlines.add(self.http_server)
        if self._settings.auth.enabled:
            await self.keys.start()
        if self.models is not None:
            await self.models.start()
        for one in self.backends.all:
            await one.engine.start()

    async def stop(self) -> None:
        """Stop everything; requests that are still in flight are aborted."""
        self.http_server.abort_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self.pipeline.idle()
        if self.models is not None:
            await self.models.stop()
        await asyncio.gather(*(one.settlement.close() for one in self.backends.all))
        for one in self.backends.all:
            await one.engine.stop()
        await self.keys.stop()
        self.deadlines.stop()
        for one in self.backends.all:
            one.client.close()
        await self.limiter.aclose()
        self._recorder.flush()
        await asyncio.to_thread(self.usage.close)
        await self._access_log.stop()


async def _fetch_series(one: ModelBackend) -> bytes | None:
    request = engine_request(engine_head("GET", "/metrics", one.engine_key), b"", b"")
    try:
        status, text = await fetch(one.client, request, _ENGINE_METRICS_SECONDS)
    except EngineFailure as failure:
        _log.debug("cannot fetch the engine's metrics", extra=fields(model=one.name, reason=str(failure)))
        return None
    return text if status == 200 else None
