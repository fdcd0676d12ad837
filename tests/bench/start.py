"""`make bench-start`: seconds from `llama-gguf up` to the first answers, and to ready, on a tiny model.

The target is one second to the first answer of the gateway and of the health server, on a machine of one's own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from support.appliance import Appliance, running
from support.tiny_model import write_tiny_model


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
                found.append(first_answers(appliance))
    for what in ("health", "gateway", "ready"):
        values = [seconds[what] for seconds in found]
        print(f"{what:8} {statistics.median(values):.2f} s   ({min(values):.2f} to {max(values):.2f})")  # noqa: T201


if __name__ == "__main__":
    main()
