"""A plugin of supervisord: the engine's output is rendered by `llama_server_log` before it gets into its log file.

supervisord reads the pipe anyway, so there is no further process that could fail, be slow, or lose the last lines of a
crash. supervisord loads a plugin as an RPC interface; this one has no methods.
"""

# ruff: noqa: ANN401 - supervisor has no types

from __future__ import annotations

from typing import Any

from supervisor import events, loggers
from supervisor.dispatchers import POutputDispatcher

from llama_gguf.rundir.llama_server_log import LlamaServerLog

_LOST = b"llama-server | a line could not be rendered and is withheld\n"


class NoMethods:
    """An RPC interface without methods."""


class EngineOutput(POutputDispatcher):  # type: ignore[misc]  # supervisor has no types
    """Reads the engine's output. Whatever is in it, supervisord reads on: the engine must not wait for its log."""

    def __init__(self, process: Any, event_type: Any, fd: int, log: LlamaServerLog) -> None:
        self._rendering = log
        super().__init__(process, event_type, fd)

    def _log(self, data: bytes) -> None:
        try:
            rendered = self._rendering.feed(data)
        except Exception as error:  # noqa: BLE001 - supervisord would read no more, and a full pipe stop the engine
            told = "the engine's output: %(kind)s"
            self.process.config.options.logger.log(loggers.LevelsByName.WARN, told, kind=type(error).__name__)
            rendered = _LOST
        super()._log(rendered)

    def finish(self) -> None:
        """Write what is left when the process has exited."""
        super()._log(self._rendering.end())


def make_rpcinterface(supervisord: Any, *, programs: str, log_format: str) -> NoMethods:
    """Read the output of `programs`, separated by commas, by `EngineOutput` from now on.

    supervisord calls this before it starts a program.
    """
    names = programs.split(",")
    for group in supervisord.options.process_group_configs:
        for config in group.process_configs:
            if config.name in names:
                _render_output(config, log_format)
    return NoMethods()


def _render_output(config: Any, log_format: str) -> None:
    make_dispatchers = config.make_dispatchers
    latest: list[EngineOutput] = []

    def make(process: Any) -> tuple[dict[int, Any], dict[str, int]]:
        dispatchers, pipes = make_dispatchers(process)
        for fd, plain in dispatchers.items():
            if isinstance(plain, POutputDispatcher):
                log = LlamaServerLog("json" if log_format == "json" else "text", config.name)
                dispatchers[fd] = EngineOutput(process, plain.event_type, fd, log)
                latest[:] = [dispatchers[fd]]
        return dispatchers, pipes

    def on_state(event: Any) -> None:
        if event.process.config is config:
            for dispatcher in latest:
                dispatcher.finish()

    config.make_dispatchers = make
    for ended in (events.ProcessStateExitedEvent, events.ProcessStateBackoffEvent, events.ProcessStateStoppedEvent):
        events.subscribe(ended, on_state)
