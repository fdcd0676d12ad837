"""`make bench-end-to-end`: the whole appliance against its own engine, on the starter model.

Starts `llama-gguf up`, then takes turns between the gateway and the engine's unix socket behind it, with the same load:
tokens/s at 1, 4 and 16 streams, and the time to the first token of one stream. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from gateway import answers, compile_native, running, wait_for
from image.engine import starter
from rich.console import Console
from rich.table import Table

PORT, HEALTH_PORT = 18_010, 18_011
STREAMS = (1, 4, 16)
TOKENS = 128


def write_config(folder: Path, threads: int | None) -> Path:
    """Write the configuration of an appliance with 16 slots and every feature on."""
    config = folder / "config.yaml"
    tree = {
        "paths": {"data_dir": str(folder / "data"), "run_dir": str(folder / "run")},
        "model": {"path": str(starter.default_path(os.environ)), "aliases": ["bench"]},
        "engine": {"slots": 16, "context_per_slot": 512} | ({"threads": threads} if threads else {}),
        "gateway": {"host": "127.0.0.1", "port": PORT},
        "health": {"host": "127.0.0.1", "port": HEALTH_PORT},
        "limits": {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000},
    }
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return config


def load(binary: Path, target: str, key: str, streams: int, tokens: int) -> Any:
    """Run `streams` streams of `tokens` tokens once; return the load generator's JSON."""
    argv = [str(binary), target, key, "once", str(streams), "120", str(tokens), "1"]
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Start, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--engine-threads",
        type=int,
        help="leave cores to the gateway, as an engine on a GPU does (default: all are the engine's)",
    )
    options = parser.parse_args()
    command = shutil.which("llama-gguf", path=str(Path(sys.executable).parent))
    assert command
    rates: dict[int, dict[str, list[float]]] = {n: {"direct": [], "gateway": []} for n in STREAMS}
    firsts: dict[str, list[float]] = {"direct": [], "gateway": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        _, binary = compile_native(folder)
        config = write_config(folder, options.engine_threads)
        keys_file = folder / "data" / "keys.json"
        generate = [command, "keys", "generate", "--name", "bench", "--quiet", "--keys-file", str(keys_file)]
        key = subprocess.run(generate, check=True, capture_output=True, text=True).stdout.strip()
        log = (folder / "up.log").open("wb")
        with log, running([command, "up", "--config", str(config)], stdout=log, stderr=log):
            probe = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{HEALTH_PORT}/readyz"]
            wait_for(lambda: answers(PORT, "/ping"), "gateway", 60)
            wait_for(lambda: subprocess.run(probe, check=False).returncode == 0, "engine", 120)
            engine_key = (folder / "run" / "engine.key").read_text(encoding="ascii").strip()
            ways = {
                "direct": (f"unix:{folder / 'run' / 'engine.sock'}", engine_key),
                "gateway": (f"127.0.0.1:{PORT}", key),
            }
            for target, secret in ways.values():  # warm up: the prompt's cache, the gateway's connection
                load(binary, target, secret, 16, 8)
            for number in range(options.rounds):
                order = list(ways) if number % 2 == 0 else list(reversed(ways))
                for streams in STREAMS:
                    for way in order:
                        result = load(binary, *ways[way], streams, TOKENS)
                        if result["other"] or result["requests"] != streams:
                            sys.exit(f"{way}: {result}")
                        rates[streams][way].append(result["events"] / result["seconds"])
                for way in order * 4:
                    firsts[way].append(load(binary, *ways[way], 1, 2)["p50_us"] / 1e3)
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("streams", "direct tokens/s", "gateway tokens/s", "ratio (target 0.98)", "range")
    for streams, by_way in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(by_way["gateway"], by_way["direct"], strict=True)]
        medians = [statistics.median(by_way[way]) for way in ("direct", "gateway")]
        cells = [f"{value:.1f}" for value in medians]
        span = f"{min(ratios):.3f}-{max(ratios):.3f}"
        table.add_row(str(streams), *cells, f"{statistics.median(ratios):.3f}", span)
    console.print(table)
    direct, ours = (statistics.median(firsts[way]) for way in ("direct", "gateway"))
    console.print(f"first token: direct {direct:.2f} ms, gateway {ours:.2f} ms, {ours - direct:+.2f} ms (target +2)")
    if options.json:
        options.json.write_text(json.dumps({"tokens_per_second": rates, "first_token_ms": firsts}, indent=1))


if __name__ == "__main__":
    main()
