"""The states and phases, the same in /health, metrics, logs and `status`.

A state says whether requests can be served. The phase beside it says what is being done, or what is missing.
The states of single programs, which `status` lists too, are supervisord's.
"""

from __future__ import annotations

from enum import StrEnum


class EngineState(StrEnum):
    """llama-server, as the gateway sees it."""

    LOADING = "loading"  # the model is being downloaded or loaded
    READY = "ready"
    DOWN = "down"  # not running; supervisord restarts it
    FAILED = "failed"  # given up for good
    UNLOADED = "unloaded"  # stopped, because nobody needs its model now


class Residency(StrEnum):
    """Whether a model is in memory, and what the gateway does about it."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    DRAINING = "draining"  # serves what it has begun, and then gives way
    UNLOADING = "unloading"
    FAILED = "failed"


class ServiceState(StrEnum):
    """The appliance, as its clients and platforms see it."""

    STARTING = "starting"  # has not been ready yet
    READY = "ready"
    UNREADY = "unready"  # was ready before
    DRAINING = "draining"  # a stop was requested
    FAILED = "failed"  # given up for good


STOPPED = "stopped"
"""The state in `status` where nothing runs."""


class Phase(StrEnum):
    """What is being done, or what is missing. The engine's program records the first four."""

    RESOLVING = "resolving"  # looking for the model's files
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STARTING = "starting"  # before llama-server runs
    LOADING = "loading"  # llama-server is loading the model
    SILENT = "silent"  # llama-server does not respond in time
    BROKEN = "broken"  # llama-server responds with an error
    GATEWAY = "gateway"  # only the gateway is missing
    SERVING = "serving"
    UNLOADED = "unloaded"  # not in memory, because nobody needs the model now
    DRAINING = "draining"
    FAILED = "failed"
