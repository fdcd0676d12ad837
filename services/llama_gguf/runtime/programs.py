"""Settings -> the programs that supervisord runs, as plain values.

Owns names, priorities and stop timeouts. Pure. No user input gets into an argv: programs read the snapshot in the run
directory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llama_gguf.settings import Settings
from llama_gguf.settings.environment_filter import PROXIES
from llama_gguf.settings.sections.sources import artifacts_of

ENGINE, GATEWAY, HEALTH, LISTENER = "engine", "gateway", "health", "listener"


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised program.

    Started in ascending order of `priority` without waiting; stopped in descending order, each after the one before
    it has exited. It gets SIGKILL `stop_seconds` after the stop signal. A `listener` uses stdin and stdout for
    supervisord's event protocol instead of logging to stdout. `variables` are the environment variables it gets beyond
    the common ones, as patterns of `settings.environment_filter`.
    """

    name: str
    argv: tuple[str, ...]
    priority: int
    stop_seconds: int
    start_seconds: int = 1
    start_retries: int = 3
    stop_signal: str = "TERM"
    listener: bool = False
    variables: tuple[str, ...] = ()


def build_programs(settings: Settings, python: str) -> tuple[Program, ...]:
    """Return the appliance's programs; `python` is the interpreter's bare name, found through PATH.

    The gateway stops first and the engine only after it, so that running requests can finish; the health server reports
    `draining` until it stops after the engine. The listener is last: it handles the exits of the others.
    """
    supervisor = settings.supervisor
    stop_seconds = math.ceil(supervisor.stop_seconds)
    drain_seconds = math.ceil(settings.gateway.drain_seconds)

    def program(name: str, module: str, priority: int, stop: int, variables: tuple[str, ...] = ()) -> Program:
        argv = (python, "-P", "-m", module)
        return Program(name, argv, priority, stop, start_retries=supervisor.start_retries, variables=variables)

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
        program(GATEWAY, "llama_gguf.gateway", 30, drain_seconds + stop_seconds, _gateway_variables(settings)),
        program(ENGINE, "llama_gguf.engine", 20, stop_seconds, _engine_variables(settings)),
    )


def _gateway_variables(settings: Settings) -> tuple[str, ...]:
    password = settings.limits.store_password_env
    return (password,) if password else ()


def _engine_variables(settings: Settings) -> tuple[str, ...]:
    """Return what downloads need: the hub's variables with its token, the proxies, and the configured tokens."""
    tokens = [artifact.token_env for _, artifact in artifacts_of(settings.model) if artifact.token_env]
    hub = ("HF_*", "HUGGING_FACE_HUB_TOKEN", "XDG_CACHE_HOME")
    return (*hub, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", *PROXIES, *tokens)
