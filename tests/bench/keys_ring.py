"""What it costs to match a key, good and bad, with few keys and with many: `python tests/bench/keys_ring.py`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

from llama_gguf.keys.durations import parse_moment
from llama_gguf.keys.file_format import parse, render
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.record import KeyFile, KeyRecord
from llama_gguf.keys.secret import digest, new_secret, visible_prefix

CALLS = 20_000
ROUNDS = 7
START = parse_moment("2026-01-01")


def record(number: int, secret: str) -> KeyRecord:
    """Make a record as a keys file would hold it."""
    return KeyRecord(f"key-{number}", digest(secret), visible_prefix(secret), START)


def microseconds(ring: Keyring, presented: Sequence[str]) -> float:
    """Return the median processor time of one match, each of another key."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for text in presented:
            ring.match(text, 1.0)
        rounds.append((time.process_time() - began) / len(presented) * 1e6)
    return statistics.median(rounds)


def main() -> None:
    """Print one line for each number of keys."""
    out = sys.stdout.write
    out(f"{'keys':>7} {'hit µs':>8} {'miss µs':>8} {'malformed µs':>13} {'load s':>8}\n")
    for count in (1, 1_000, 100_000):
        secrets = [new_secret() for _ in range(count)]
        text = render(KeyFile(tuple(record(number, secret) for number, secret in enumerate(secrets))))
        began = time.process_time()
        ring = Keyring(parse(text, source="keys.json", read_at=START).records)
        load = time.process_time() - began
        hits = (secrets * (CALLS // count + 1))[:CALLS]
        misses = [new_secret() for _ in range(CALLS)]
        times = [microseconds(ring, presented) for presented in (hits, misses, ["no key"] * CALLS)]
        out(f"{count:>7} {times[0]:>8.2f} {times[1]:>8.2f} {times[2]:>13.2f} {load:>8.3f}\n")


if __name__ == "__main__":
    main()
