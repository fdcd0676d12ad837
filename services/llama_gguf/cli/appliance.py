"""Inspects a running or failed appliance through its run directory and sockets; changes nothing."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gguf.cli.config_options import find_config
from llama_gguf.cli.process_memory import ProcessMemory, read_process_memory
from llama_gguf.errors import ExitCode
from llama_gguf.models.source import served_names
from llama_gguf.rundir import engine_phase, engine_reduction, engine_variant, residency
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.crashes import Crash, CrashFile
from llama_gguf.rundir.engine_phase import EnginePhase
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.rundir.supervisord_client import ProgramInfo, Supervisord, SupervisordError
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir, locate
from llama_gguf.settings.health_paths import DETAILS
from llama_gguf.settings.hosts import from_here, is_wildcard
from llama_gguf.settings.loading.load import InvalidConfigError, load
from llama_gguf.states import STOPPED, Residency, ServiceState

_HEALTH_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ServedFacts:
    """What the run directory says of one of several models."""

    name: str  # for clients
    program: str
    required: bool
    on_demand: bool
    residency: Residency | None = None  # as the gateway has recorded it; None where it has never stopped the engine
    engine: EnginePhase | None = None
    failure: Failure | None = None  # why it was given up while the appliance goes on
    variant: EngineVariant | None = None
    reduced: Mapping[str, int | str] = field(default_factory=dict)  # engine settings, after it ran out of memory


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of an appliance at one moment. `programs` is empty if it does not run."""

    run: RunDir
    snapshot: Snapshot | None
    programs: tuple[ProgramInfo, ...]
    crashes: tuple[Crash, ...]
    health: dict[str, Any] | None  # the health server's response; None if there is none
    engine: EnginePhase | None  # the engine program's own phase, of several the first's: more detailed than health's
    failure: Failure | None
    variant: EngineVariant | None = None  # of the engine's CPU code
    was_ready: bool = False
    memory: Mapping[str, ProcessMemory] = field(default_factory=dict)  # by program
    models: tuple[ServedFacts, ...] = ()  # each of several

    @property
    def running(self) -> bool:
        """Whether supervisord answers."""
        return bool(self.programs)

    @property
    def state(self) -> str:
        """The health server's state; if it does not respond, or nothing runs, that of the files."""
        if self.health and self.running:
            return str(self.health["state"])
        if self.failure:
            return ServiceState.FAILED
        if not self.running:
            return STOPPED
        return ServiceState.UNREADY if self.was_ready else ServiceState.STARTING

    @property
    def exit_code(self) -> int:
        """0 ready; 75 running but not ready (yet), so a retry can succeed; 69 stopped or failed."""
        if self.state == ServiceState.READY:
            return ExitCode.OK
        return ExitCode.UNAVAILABLE if self.state in {STOPPED, ServiceState.FAILED} else ExitCode.TEMPORARY

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Warnings of a single engine while it runs."""
        return self.engine.warnings if self.running and self.engine and not self.models else ()

    def warnings_of(self, model: ServedFacts) -> tuple[Notice, ...]:
        """Return the warnings of one of several engines while it runs."""
        runs = any(one.name == model.program and one.pid for one in self.programs)
        return model.engine.warnings if runs and model.engine else ()

    def state_of(self, model: ServedFacts) -> str:
        """Return what one of several models does: as the health server sees it; without one, what the files say."""
        if self.running and self.health:
            seen = self.health.get("models") or []
            if len(seen) == len(self.models):
                return str(seen[self.models.index(model)]["phase"])
        if model.failure:
            return ServiceState.FAILED
        if not self.running:
            return STOPPED
        info = next((one for one in self.programs if one.name == model.program), None)
        return model.residency or (info.state.lower() if info else STOPPED)

    def restarts(self, program: str) -> int:
        """Return how often `program` exited unexpectedly since the appliance was started."""
        return sum(crash.program == program for crash in self.crashes)

    def last_crash(self, program: str) -> Crash | None:
        """Return the latest of those."""
        return next((crash for crash in reversed(self.crashes) if crash.program == program), None)


def find_run_dir(
    given: Path | None, config: Path | None, sets: tuple[str, ...], env: Mapping[str, str] | None = None
) -> RunDir:
    """Return the run directory: as given, from the programs' variable, or where `up` creates it with this config."""
    variables = os.environ if env is None else env
    if found := given or variables.get(RUN_DIR_VARIABLE):
        return RunDir(root=Path(found).absolute())
    try:
        loaded = load(find_config(config, variables), variables, sets)
    except InvalidConfigError:
        if config is not None:
            raise
        # No valid configuration here, as in a shell inside a container: use the defaults and variables.
        loaded = load(None, variables, (*sets, "model.name=unknown"))
    return locate(loaded.settings, variables).run


def inspect(run: RunDir) -> Facts:
    """Inspect the appliance of `run`."""
    snapshot = None
    if run.snapshot.exists():
        snapshot = snapshots.read_validated(run.snapshot)
    try:
        programs = tuple(Supervisord(run.supervisord_socket).programs())
    except SupervisordError:
        programs = ()
    models = _read_models(snapshot) if snapshot and snapshot.settings.models else ()
    own = run.of_engine(models[0].program) if models else run
    return Facts(
        run=run,
        snapshot=snapshot,
        programs=programs,
        crashes=tuple(CrashFile(run.crashes).read()),
        health=ask_health(snapshot) if snapshot else None,
        engine=engine_phase.read(own.engine_phase),
        failure=failures.read(run.failure),
        variant=engine_variant.read(own.engine_variant),
        was_ready=run.ready.exists(),
        memory={info.name: found for info in programs if info.pid and (found := read_process_memory(info.pid))},
        models=models,
    )


def _read_models(snapshot: Snapshot) -> tuple[ServedFacts, ...]:
    stopped = residency.read(snapshot.locations.run.residency)
    found = []
    for one in snapshot.models:
        run = snapshot.locations.run.of_engine(one.program)
        reduction = engine_reduction.read(run.engine_reduction)
        found.append(
            ServedFacts(
                name=served_names(one.settings.model)[0],
                program=one.program,
                required=one.required,
                on_demand=one.on_demand,
                residency=stopped[one.program].state if one.program in stopped else None,
                engine=engine_phase.read(run.engine_phase),
                failure=failures.read(run.engine_failure),
                variant=engine_variant.read(run.engine_variant),
                reduced=reduction.values if reduction else {},
            )
        )
    return tuple(found)


def ask_health(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return the health server's details, or None if it does not respond."""
    health = snapshot.settings.health
    connection = http.client.HTTPConnection(from_here(health.host), health.port, timeout=_HEALTH_SECONDS)
    try:
        connection.request("GET", DETAILS)
        value = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return value if isinstance(value, dict) and "state" in value else None


def public_url(snapshot: Snapshot) -> str:
    """Return the URL of the API for clients on this machine."""
    gateway = snapshot.settings.gateway
    host = "localhost" if is_wildcard(gateway.host) else gateway.host
    return f"http://{f'[{host}]' if ':' in host else host}:{gateway.port}"
