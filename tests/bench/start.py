"""`make bench-start`: seconds from `llama-gguf up` to the first answers and to ready, and from a kill -9 to serving.

On a tiny model, which loads in no time. The targets, on a machine of one's own: one second to the first answer of the
gateway and of the health server; five seconds from the death of any one program until it serves again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.appliance import Appliance, running
from support.tiny_model import write_tiny_model

GIVE_UP_SECONDS = 60


def first_answers(appliance: Appliance) -> dict[str, float]:
    """Return the seconds from the start of `up` to the first answer of each server, and to ready."""
    ports = {"health": appliance.health_port, "gateway": appliance.gateway_port}
    seconds: dict[str, float] = {}
    while len(seconds) < 3:
        for name, port in ports.items():
            try:
                status = appliance.ask(port, "/ping", timeout=5).status
            except OSError:
                continue
            seconds.setdefault(name, time.monotonic() - appliance.started_at)
            if name == "health" and status == 200:
                seconds.setdefault("ready", time.monotonic() - appliance.started_at)
        time.sleep(0.005)
    return seconds


def back_after_kill(appliance: Appliance) -> dict[str, float]:
    """Kill each program in turn; return the seconds until what it does works again."""
    works: dict[str, Callable[[], object]] = {
        "engine": lambda: appliance.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200,
        "gateway": lambda: appliance.get("/ping").status == 200,
        "health": lambda: appliance.ping() == 200,
    }
    seconds = {}
    for program, serves in works.items():
        victim = appliance.kill(program)
        begin = time.monotonic()
        while True:
            try:
                if appliance.pid(program) != victim and serves():
                    break
            except (OSError, AssertionError):
                pass
            if time.monotonic() - begin > GIVE_UP_SECONDS:
                raise SystemExit(f"{program}: not back within {GIVE_UP_SECONDS} s")
            time.sleep(0.01)
        seconds[f"{program} killed"] = time.monotonic() - begin
    return seconds


def main() -> None:
    """Start the appliance some times and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        model = write_tiny_model(Path(name) / "tiny.gguf")
        found = []
        for number in range(rounds):
            with running(Path(name) / str(number), model=model) as appliance:
                found.append(first_answers(appliance) | back_after_kill(appliance))
    for what in found[0]:
        values = [seconds[what] for seconds in found]
        print(f"{what:15} {statistics.median(values):.2f} s   ({min(values):.2f} to {max(values):.2f})")  # noqa: T201


if __name__ == "__main__":
    main()
