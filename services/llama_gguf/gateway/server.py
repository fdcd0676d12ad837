"""The listening sockets, the signals and the drain of the gateway, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from llama_gguf.errors import LaunchError
from llama_gguf.gateway.inputs import RuntimeInputs
from llama_gguf.logs import fields
from llama_gguf.rundir.snapshot import Snapshot

from .app import Gateway

_log = logging.getLogger(__name__)

BACKLOG = 4096


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`. Raises LaunchError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise LaunchError(f"gateway.host: {host}: {error.strerror or error}") from error
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            # The protocol must be TCP and not 0: asyncio sets TCP_NODELAY only on such sockets.
            sock = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise LaunchError(
                f"gateway.port: cannot listen on {address[0]}:{port}: {error.strerror or error}",
                hint="is another program using the port? `ss -ltnp` shows which one",
            ) from error
    return sockets


async def serve(snapshot: Snapshot, inputs: RuntimeInputs, *, ready: Callable[[int], None] | None = None) -> None:
    """Run the gateway until SIGTERM or SIGINT, then drain. `ready` is called with the port once it is listening."""
    settings = snapshot.settings.gateway
    gateway = Gateway(snapshot, inputs)
    sockets = listen(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    force_stop = asyncio.Event()

    def on_stop() -> None:
        (force_stop if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop)
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        task = loop.create_task(gateway.reload_keys())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await gateway.start()
    servers = [await loop.create_server(gateway.protocol, sock=sock, backlog=BACKLOG) for sock in sockets]
    port = sockets[0].getsockname()[1]
    _log.info("gateway is listening", extra=fields(host=settings.host, port=port))
    if ready is not None:
        ready(port)
    await stopping.wait()
    _log.info("gateway is draining", extra=fields(in_flight=gateway.pipeline.in_flight, seconds=settings.drain_seconds))
    for server in servers:
        server.close()
    await gateway.drain(settings.drain_seconds, force_stop)
    await gateway.stop()
    _log.info("gateway stopped")
