"""The words for how things are, the same ones in /health, metrics, logs and `status`.

A state says whether requests can be served. A phase stands beside it and says what is being done, or what is missing.
The states of single programs, which `status` lists too, are supervisord's.
"""

from __future__ import annotations

from enum import StrEnum


class EngineState(StrEnum):
    """llama-server, as those see it who send it requests."""

    LOADING = "loading"  # on its way: the model is fetched or loaded
    READY = "ready"
    DOWN = "down"  # it does not run; supervisord starts it again
    FAILED = "failed"  # given up for good


class ServiceState(StrEnum):
    """The appliance, as its clients and platforms see it."""

    STARTING = "starting"  # has not been ready yet
    READY = "ready"
    UNREADY = "unready"  # was ready before
    DRAINING = "draining"  # a stop was asked for
    FAILED = "failed"  # given up for good


STOPPED = "stopped"
"""What `status` says where there is no service that could be in a state."""


class Phase(StrEnum):
    """What is being done, or what is missing. The engine's program writes down the first four of itself."""

    RESOLVING = "resolving"  # looking for the model's files
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STARTING = "starting"  # a program is on its way to becoming llama-server
    LOADING = "loading"  # llama-server loads the model
    SILENT = "silent"  # llama-server does not answer in time
    BROKEN = "broken"  # llama-server answers with an error
    GATEWAY = "gateway"  # all but the gateway is there
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"
