"""`make bench-fairness`: what one key's flood costs another key, on the real engine.

Key A sends 200 long jobs, then key B ten short ones at once. Compared is how long B's jobs wait for a slot (`queue_ms`
of the access log): on an idle engine, alone in the queue while four jobs of A hold the four slots (running jobs are not
interrupted, so this is what B gets when nobody competes for the next slot), behind the flood with the fair queue, and
behind it in order of arrival. The model is random and slow. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
import yaml
from gateway import answers, running, wait_for
from rich.console import Console
from rich.table import Table

from support.tiny_model import write_tiny_model

PORT, HEALTH_PORT = 18_020, 18_021
SLOTS, FLOOD, SHORT_JOBS = 4, 200, 10
LONG_TOKENS, SHORT_TOKENS = 64, 8
LAYERS = 75  # some hundred tokens/s
TARGET = 2.0  # B's p95 wait behind the flood, as a multiple of its wait when alone

Case = Literal["idle", "alone", "flood"]
WAYS = ("idle", "alone", "fair", "fifo")
CASES: dict[str, tuple[Case, ...]] = {"fair": ("idle", "alone", "flood"), "fifo": ("flood",)}


@dataclass(frozen=True)
class Box:
    """A running appliance: two keys, and the log that tells what each request waited."""

    folder: Path
    keys: dict[str, str]
    long_seconds: float = 1.0
    ids: Iterator[int] = field(default_factory=itertools.count)
    idle_after: list[float] = field(default_factory=list)  # seconds from A's hanging up to an idle engine

    async def job(self, session: aiohttp.ClientSession, key: str, tokens: int) -> str:
        """Run one job to its end; return its request id."""
        identity = f"bench-{key}-{next(self.ids)}"
        headers = {"Authorization": f"Bearer {self.keys[key]}", "X-Request-Id": identity}
        body = {"prompt": "Wait", "max_tokens": tokens, "ignore_eos": True, "cache_prompt": False}
        async with session.post("/v1/completions", json=body, headers=headers) as answer:
            if answer.status != 200:
                sys.exit(f"{key}: {answer.status} {await answer.text()}")
            await answer.read()
        return identity

    def waits(self, identities: set[str]) -> list[float]:
        """Return the seconds that requests waited, once the access log has them all."""
        found: dict[str, float] = {}
        log = self.folder / "data" / "logs" / "default" / "latest" / "gateway.log"

        def complete() -> bool:
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if '"event":"request"' in line and (record := json.loads(line))["request_id"] in identities:
                    found[record["request_id"]] = record["queue_ms"] / 1000
            return len(found) == len(identities)

        wait_for(complete, "the access log", 10)
        return list(found.values())

    async def until_idle(self) -> None:
        """Wait until the engine works on nothing, so that no round pays for what the last one left behind."""
        begin = time.perf_counter()
        key = (self.folder / "run" / "engine.key").read_text(encoding="ascii").strip()
        connector = aiohttp.UnixConnector(str(self.folder / "run" / "engine.sock"))
        async with aiohttp.ClientSession("http://engine", connector=connector) as session:
            while True:
                async with session.get("/slots", headers={"Authorization": f"Bearer {key}"}) as answer:
                    if not any(slot["is_processing"] for slot in await answer.json()):
                        break
                await asyncio.sleep(0.05)
        self.idle_after.append(time.perf_counter() - begin)


@contextlib.contextmanager
def appliance(folder: Path, model: Path, fairness: str) -> Iterator[Box]:
    """Run `llama-gguf up` with four slots and the queue that is to be measured."""
    (folder / "data").mkdir(parents=True)
    command = shutil.which("llama-gguf", path=str(Path(sys.executable).parent))
    assert command
    tree = {
        "paths": {"data_dir": str(folder / "data"), "run_dir": str(folder / "run")},
        "model": {"path": str(model)},
        "engine": {
            "slots": SLOTS,
            "context_per_slot": 256,
            "threads": 1,
        },  # two would wait for each other on a busy box
        "gateway": {"host": "127.0.0.1", "port": PORT},
        "health": {"host": "127.0.0.1", "port": HEALTH_PORT},
        "limits": {"requests_per_minute": 1_000_000, "queue": {"fairness": fairness, "max_wait_seconds": 600}},
        "logging": {"format": "json"},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    keys_file = str(folder / "data" / "keys.json")
    keys = {}
    for name in ("a", "b"):
        generate = [command, "keys", "generate", "--name", name, "--quiet", "--keys-file", keys_file]
        keys[name] = subprocess.run(generate, check=True, capture_output=True, text=True).stdout.strip()
    probe = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{HEALTH_PORT}/readyz"]
    with (
        (folder / "up.log").open("wb") as log,
        running([command, "up", "--config", str(config)], stdout=log, stderr=log),
    ):
        wait_for(lambda: answers(PORT, "/ping"), "gateway", 60)
        wait_for(lambda: subprocess.run(probe, check=False).returncode == 0, "engine", 120)
        yield Box(folder, keys)


def connect() -> aiohttp.ClientSession:
    """Return a client without limits of its own."""
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{PORT}",
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=600),
    )


async def long_seconds(box: Box) -> float:
    """Return how long a long job takes when all slots are busy; warms up besides."""
    async with connect() as session:
        await asyncio.gather(*[box.job(session, "a", SHORT_TOKENS) for _ in range(SLOTS)])
        begin = time.perf_counter()
        await asyncio.gather(*[box.job(session, "a", LONG_TOKENS) for _ in range(SLOTS)])
        return time.perf_counter() - begin


async def measure(box: Box, case: Case) -> list[float]:
    """Let A send what the case wants and B its ten jobs; return B's waits. A's clients hang up at the end."""
    jobs_of_a = {"idle": 0, "alone": SLOTS, "flood": FLOOD}[case]
    async with connect() as session:
        flood = []
        for index in range(jobs_of_a):
            flood.append(asyncio.create_task(box.job(session, "a", LONG_TOKENS)))
            # Clients never start in the very same instant; staggered, a slot becomes free every quarter of a job.
            await asyncio.sleep(box.long_seconds / SLOTS if index < SLOTS - 1 else 0)
        await asyncio.sleep(box.long_seconds / (2 * SLOTS) if flood else 0)
        identities = await asyncio.gather(*[box.job(session, "b", SHORT_TOKENS) for _ in range(SHORT_JOBS)])
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    if flood:
        await box.until_idle()
    return await asyncio.to_thread(box.waits, set(identities))


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


def main() -> None:
    """Start with either queue, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    job_seconds, idle_after = {}, []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        model = write_tiny_model(Path(name) / "slow.gguf", layers=LAYERS)
        for fairness, cases in CASES.items():
            with appliance(Path(name) / fairness, model, fairness) as started:
                seconds = job_seconds[fairness] = asyncio.run(long_seconds(started))
                box = Box(started.folder, started.keys, seconds)
                # In order of arrival B waits for all of A's jobs each time, so there a few rounds must do.
                for _ in range(options.rounds if fairness == "fair" else min(options.rounds, 3)):
                    for case in cases:
                        way = fairness if case == "flood" else case
                        rounds[way].append(asyncio.run(measure(box, case)))
                idle_after += box.idle_after
    report(rounds, job_seconds)
    Console().print(f"After A's clients hung up the engine was idle within {max(idle_after):.2f} s at most.")
    found = {"b_waits_seconds": rounds, "long_job_seconds": job_seconds, "idle_after_hang_up_seconds": idle_after}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def report(rounds: dict[str, list[list[float]]], job_seconds: dict[str, float]) -> None:
    """Print the medians of the rounds, and how many times its wait when alone B waited."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    names = {
        "idle": "idle engine",
        "alone": f"alone in the queue, {SLOTS} jobs of A run",
        "fair": f"behind {FLOOD} jobs of A, fair",
        "fifo": f"behind {FLOOD} jobs of A, fifo",
    }
    p95 = {way: [percentile(waits, 0.95) for waits in found] for way, found in rounds.items()}
    alone = statistics.median(p95["alone"])
    table = Table("B's wait for a slot", "p50 s", "p95 s", "range of p95", f"x alone (target < {TARGET:g})")
    for way in WAYS:
        p50 = statistics.median(percentile(waits, 0.5) for waits in rounds[way])
        median, span = statistics.median(p95[way]), f"{min(p95[way]):.2f}-{max(p95[way]):.2f}"
        table.add_row(names[way], f"{p50:.2f}", f"{median:.2f}", span, f"{median / alone:.2f}")
    console.print(table)
    times = ", ".join(f"{seconds:.2f} s ({way})" for way, seconds in job_seconds.items())
    console.print(f"Medians of {len(rounds['fair'])} rounds ({len(rounds['fifo'])} in fifo), {SHORT_JOBS} jobs of B.")
    console.print(f"A long job while all slots are busy: {times}")


if __name__ == "__main__":
    main()
