"""`make bench-swap`: what it costs that models take turns, on the real engine.

Three figures. How long a request for an unloaded model waits while another, idle, has to leave, beside how long the
bare llama-server takes from its start to the same response. How many tokens/s a model makes that stays loaded, while
the others are swapped beside it, to what it makes alone. And what a request for one model waits while another is
flooded. The swapped models have some hundred MB of random weights; the memory has room for one of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.many_models import ManyModels, many_models
from support.tiny_model import write_tiny_model

BINARY = Path(sysconfig.get_paths()["purelib"]) / "bin" / "llama-server"
TARGET_SECONDS = 0.3
MIB = 1 << 20
PROMPT = {"prompt": "abc", "max_tokens": 1, "temperature": 0}
ENGINE = {"context_per_slot": 512, "slots": 2, "threads": 1, "gpu_layers": 0}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def bare_seconds(folder: Path, weights: Path) -> float:
    """Start llama-server as the appliance does; return the seconds until its first response."""
    path = folder / "bare.sock"
    path.unlink(missing_ok=True)
    sizes = ["--ctx-size", "1024", "--parallel", "2", "--threads", "1", "--fit", "off", "--offline"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [str(BINARY), "--host", str(path), "--model", str(weights), *sizes],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"llama-server ended with {process.returncode}")
            connection = UnixConnection(path)
            try:
                connection.request("POST", "/completion", json.dumps(PROMPT), {"Content-Type": "application/json"})
                if connection.getresponse().status == 200:
                    return time.perf_counter() - begin
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def ask(box: ManyModels, model: str, key: str = "ann", tokens: int = 1) -> float:
    """Return the seconds that a completion takes."""
    begin = time.perf_counter()
    found = box.complete(model, key=key, max_tokens=tokens)
    if found.status != 200:
        raise SystemExit(f"{model}: {found.status} {found.body!r}")
    return time.perf_counter() - begin


@contextmanager
def flooded(box: ManyModels, model: str, clients: int, tokens: int) -> Iterator[list[int]]:
    """Have clients use a model without a pause; yields a list that gets the tokens of each response."""
    ended = threading.Event()
    done: list[int] = []

    def flood() -> None:
        while not ended.is_set():
            ask(box, model, "bob", tokens)
            done.append(tokens)

    threads = [threading.Thread(target=flood) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def speed(box: ManyModels, seconds: float) -> float:
    """Return the tokens/s that the model that stays makes for two clients."""
    with flooded(box, "stays", 2, 32) as done:
        time.sleep(seconds / 4)
        before = len(done)
        begin = time.perf_counter()
        time.sleep(seconds)
        return sum(done[before:]) / (time.perf_counter() - begin)


def room_for_one(folder: Path, models: dict[str, Any]) -> dict[str, Any]:
    """Return a budget for one of the two swapped models beside the one that stays, from what they use."""
    (folder / "sizes").mkdir()
    with many_models(folder / "sizes", BINARY, models, engine=ENGINE) as box:
        for name in models:
            ask(box, name)
        time.sleep(2)
        sizes = {name: one["host_bytes"] for name, one in box.residency().items()}
    one = max(sizes["a"], sizes["b"])
    return {"host_mib": (sizes.get("stays", 0) + one + min(sizes["a"], sizes["b"]) // 2) // MIB}


def show(what: str, values: list[float], unit: str = "s") -> None:
    """Print a figure: median and range."""
    print(f"{what:52} {statistics.median(values):6.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")  # noqa: T201


def main() -> None:
    """Measure all three and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=500, help="of the swapped models")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        weights = {one: write_tiny_model(folder / f"{one}.gguf", layers=options.layers, seed=ord(one)) for one in "ab"}
        swapped = {one: {"path": str(path), "load": "on_demand"} for one, path in weights.items()}
        measure_swaps(folder, swapped, weights["a"], options.rounds)
        stays = {"path": str(write_tiny_model(folder / "stays.gguf", layers=75))}
        measure_neighbour(folder, {**swapped, "stays": stays}, options.rounds)


def measure_swaps(folder: Path, models: dict[str, Any], weights: Path, rounds: int) -> None:
    """The wait for an unloaded model: beside the bare engine, alone, and while the other is flooded."""
    (folder / "swaps").mkdir()
    rules = {"min_resident_seconds": 1}
    memory = {**room_for_one(folder, models), **rules}
    with many_models(folder / "swaps", BINARY, models, engine=ENGINE, memory=memory) as box:
        ask(box, "a"), ask(box, "b")
        bare, swaps = [], []
        for number in range(rounds):
            bare.append(bare_seconds(folder, weights))
            swaps.append(ask(box, "ab"[number % 2]))
        show("bare llama-server, start to response", bare)
        show("request that needs a swap", swaps)
        over = statistics.median(swaps) - statistics.median(bare)
        print(f"{'more than bare (at most ' + str(TARGET_SECONDS) + ')':52} {over:6.2f} s")  # noqa: T201
        alone = []
        for _ in range(rounds):
            ask(box, "a")
            time.sleep(2)  # somebody who uses a now and then, and does not compete
            alone.append(ask(box, "b", "cid"))
        with flooded(box, "a", 8, 16):
            behind = []
            for _ in range(rounds):
                time.sleep(2)
                behind.append(ask(box, "b", "cid"))
        show("wait for b, a loaded and idle", alone)
        show("wait for b, a flooded", behind)
        bound = 2 * statistics.median(alone) + statistics.median(swaps)
        print(f"{'95th percentile; at most twice alone + one swap':52} {sorted(behind)[-1]:6.2f} s   ({bound:.2f})")  # noqa: T201


def measure_neighbour(folder: Path, models: dict[str, Any], rounds: int) -> None:
    """Tokens/s of a model that stays: alone, and while the others are swapped."""
    neighbour = folder / "neighbour"
    neighbour.mkdir()
    memory = room_for_one(neighbour, models)
    with many_models(neighbour, BINARY, models, engine=ENGINE, memory=memory) as box:
        ask(box, "a")
        alone, beside = [], []
        for number in range(rounds):
            alone.append(speed(box, 2))
            swapper = threading.Thread(target=ask, args=(box, "ab"[(number + 1) % 2]))
            swapper.start()
            beside.append(speed(box, 2))
            swapper.join()
    show("a model that stays, alone", alone, "tokens/s")
    show("a model that stays, another being loaded", beside, "tokens/s")
    print(f"{'ratio':52} {statistics.median(beside) / statistics.median(alone):6.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
