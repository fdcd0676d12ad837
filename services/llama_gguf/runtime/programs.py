"""Settings -> the programs that supervisord runs, as plain values.

Owns names, priorities and stop timeouts. Pure. No user input gets into an argv: programs read the snapshot in the run
directory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llama_gguf.settings import Settings
from llama_gguf.settings.environment_filter import PROXIES
from llama_gguf.settings.one_model import OneModel, each_model
from llama_gguf.settings.sections.sources import artifacts_of

GATEWAY, HEALTH, LISTENER = "gateway", "health", "listener"
_FIRST_ENGINE_PRIORITY, _GATEWAY_PRIORITY = 20, 900


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised program.

    Started in ascending order of `priority` without waiting; stopped in descending order, each after the one before
    it has exited. It gets SIGKILL `stop_seconds` after the stop signal. A `listener` uses stdin and stdout for
    supervisord's event protocol instead of logging to stdout. Without `autostart` it runs only once the gateway wants
    it. `variables` are the environment variables it gets beyond the common ones, as patterns of
    `settings.environment_filter`.
    """

    name: str
    argv: tuple[str, ...]
    priority: int
    stop_seconds: int
    start_seconds: int = 1
    start_retries: int = 3
    stop_signal: str = "TERM"
    listener: bool = False
    autostart: bool = True
    variables: tuple[str, ...] = ()


def build_programs(
    settings: Settings, python: str, sizes: Mapping[str, int] | None = None, *, one_by_one: bool = False
) -> tuple[Program, ...]:
    """Return the appliance's programs; `python` is the interpreter's bare name, found through PATH.

    Each model has an engine of its own. The largest of several, by the bytes in `sizes` (by program), starts first: it
    takes longest. `one_by_one`: the gateway starts the others, each once the one before it is loaded, because each
    takes what it finds free on the GPU.
    The gateway stops first and the engine only after it, so that running requests can finish; the health server reports
    `draining` until it stops after the engine. The listener is last: it handles the exits of the others.
    """
    supervisor = settings.supervisor
    stop_seconds = math.ceil(supervisor.stop_seconds)
    drain_seconds = math.ceil(settings.gateway.drain_seconds)

    def program(name: str, module: str, priority: int, stop: int, variables: tuple[str, ...] = ()) -> Program:
        argv = (python, "-P", "-m", module)
        return Program(name, argv, priority, stop, start_retries=supervisor.start_retries, variables=variables)

    def engine(one: OneModel, rank: int) -> Program:
        variables = _engine_variables(one.settings)
        plain = program(one.program, "llama_gguf.engine", _FIRST_ENGINE_PRIORITY + rank, stop_seconds, variables)
        argv = (*plain.argv, one.program) if one.key else plain.argv
        return replace(plain, argv=argv, autostart=not one.on_demand and not (one_by_one and rank))

    known = sizes or {}
    models = sorted(each_model(settings), key=lambda one: (one.on_demand, -known.get(one.program, 0)))
    return (
        Program(
            LISTENER,
            (python, "-P", "-m", "llama_gguf.cli.listener"),
            priority=1,
            stop_seconds=2,
            start_seconds=0,  # it gets events only while RUNNING, so it must be RUNNING immediately
            start_retries=100,
            listener=True,
        ),
        program(HEALTH, "llama_gguf.health", 10, 5),
        program(
            GATEWAY,
            "llama_gguf.gateway",
            _GATEWAY_PRIORITY,
            drain_seconds + stop_seconds,
            _gateway_variables(settings),
        ),
        *(engine(one, rank) for rank, one in enumerate(models)),
    )


def _gateway_variables(settings: Settings) -> tuple[str, ...]:
    password = settings.limits.store_password_env
    return (password,) if password else ()


def _engine_variables(settings: Settings) -> tuple[str, ...]:
    """Return what downloads need: the hub's variables with its token, the proxies, and the configured tokens."""
    tokens = [artifact.token_env for _, artifact in artifacts_of(settings.model) if artifact.token_env]
    hub = ("HF_*", "HUGGING_FACE_HUB_TOKEN", "XDG_CACHE_HOME")
    return (*hub, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", *PROXIES, *tokens)
