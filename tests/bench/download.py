"""`make bench-download`: seconds to fetch one big file over HTTP, by one connection and by eight.

First from a server that gives each connection so many bytes a second, as object stores and CDNs do, then from one that
gives what it can. The server is a process of its own on the loopback and shares the processors, so that the second
table says what a download costs here, not what a network can do. The file is empty but for its first bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from llama_gguf.models.checksum import file_sha256
from llama_gguf.models.download.download import download
from llama_gguf.models.download.spec import Remote
from support.silent import Silent

_RANGE = re.compile(rb"range: bytes=(\d+)-(\d*)", re.IGNORECASE)
_SLICES = 50  # a second, of a throttled connection


def serve(file: Path, bytes_per_second: float, pipe: Connection) -> None:
    """Serve `file` under every path, each connection in a thread; 0 bytes a second are as many as can be."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    pipe.send(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer_all, args=(connection, file, bytes_per_second), daemon=True).start()


def _answer_all(connection: socket.socket, file: Path, bytes_per_second: float) -> None:
    with connection, file.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := _request(connection):
            match = _RANGE.search(request)
            start, end = (int(match[1]), int(match[2]) + 1 if match[2] else size) if match else (0, size)
            status = "206 Partial Content" if match else "200 OK"
            head = f'HTTP/1.1 {status}\r\nETag: "bench"\r\nContent-Length: {end - start}\r\n'
            head += f"Content-Range: bytes {start}-{end - 1}/{size}\r\n" if match else ""
            connection.sendall(f"{head}\r\n".encode())
            try:
                _send(connection, source.fileno(), start, end, bytes_per_second)
            except OSError:
                return  # the client has left


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return b""
        data += received
    return data


def _send(connection: socket.socket, descriptor: int, start: int, end: int, bytes_per_second: float) -> None:
    began_at, position = time.monotonic(), start
    step = int(bytes_per_second / _SLICES) or 2**30
    while position < end:
        position += os.sendfile(connection.fileno(), descriptor, position, min(step, end - position))
        if bytes_per_second:
            time.sleep(max(0.0, began_at + (position - start) / bytes_per_second - time.monotonic()))


@contextmanager
def server(file: Path, bytes_per_second: float) -> Iterator[str]:
    """Yield the address of a server process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(file, bytes_per_second, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/model.gguf"
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True, slots=True)
class Result:
    """One download."""

    seconds: float
    cpu_seconds: float


def measure(url: str, directory: Path, connections: int, sha256: str | None) -> Result:
    """Fetch the file once and remove it."""
    target = directory / "fetched.gguf"
    began_at, cpu_at = time.monotonic(), time.process_time()
    download(Remote(url, "bench", sha256=sha256), target, Silent(), connections)
    result = Result(time.monotonic() - began_at, time.process_time() - cpu_at)
    target.unlink()
    return result


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=40.0, help="MB/s of each throttled connection")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--directory", type=Path, help="where to download to; default: the temporary directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        directory = Path(name)
        source = directory / "source.gguf"
        with source.open("wb") as file:
            file.write(b"GGUF")
            file.truncate(options.megabytes * 1_000_000)
        sha256 = file_sha256(source, Silent())
        print(f"{options.megabytes} MB to {directory}, medians of {options.rounds}")  # noqa: T201
        for rate in (options.rate * 1e6, 0.0):
            for checked in (None, sha256):
                with server(source, rate) as url:
                    runs: dict[int, list[Result]] = {1: [], options.connections: []}
                    for _ in range(options.rounds):  # in turns, so that a noisy minute hits both
                        for connections, results in runs.items():
                            results.append(measure(url, directory, connections, checked))
                for connections, results in runs.items():
                    _report(rate, connections, options.megabytes, results, checked=bool(checked))


def _report(rate: float, connections: int, megabytes: int, results: list[Result], *, checked: bool) -> None:
    seconds = statistics.median(result.seconds for result in results)
    cpu = statistics.median(result.cpu_seconds for result in results)
    spread = f"{min(r.seconds for r in results):.2f} to {max(r.seconds for r in results):.2f}"
    print(  # noqa: T201
        f"{f'{rate / 1e6:.0f} MB/s each' if rate else 'unthrottled':14} {connections:2} connections"
        f"  {'with   ' if checked else 'without'} SHA-256  {seconds:6.2f} s ({spread})"
        f"  {megabytes / seconds:5.0f} MB/s  {cpu / megabytes * 1000:.2f} CPU s/GB"
    )


if __name__ == "__main__":
    main()
