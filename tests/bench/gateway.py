"""`make bench-gateway`: what the gateway costs, side by side with nginx and with the engine direct.

One core runs the server under test, the other the load and a native fake engine. Every figure is the median of
several rounds in which the three take turns, and ratios are taken round by round. Where they answer as fast as they can
the turns are short and many, because a shared host's speed changes within seconds. Nothing is switched off: key check,
limits, queue, metrics and access log are on. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_gguf.rundir import snapshot
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, RunDir, locate, parse

HERE = Path(__file__).parent
SERVER_CPU, LOAD_CPU = "0", "1"
GATEWAY_PORT, NGINX_PORT = 18_000, 18_001
KEY_FOR_NOTHING = ""  # a wrong one is answered 401 only some times in a row
TURNS = 8
"""How often each server's turn comes in one round of a closed loop."""

# name, better is, target, stretch: ratios to nginx unless the unit says otherwise
TARGETS: dict[str, tuple[str, float, float]] = {
    "non-stream requests/s, 64 connections": ("min", 0.35, 0.65),
    "undelayed streams chunks/s, 64": ("min", 0.95, 1.05),
    "paced streams CPU per chunk, 200 x 20 ms": ("max", 1.6, 1.1),
    "paced streams time to first event p50, 64": ("max", 2.5, 1.2),
    "bad keys answers/s, 64 connections": ("min", 0.2, 0.65),
}


@dataclass(frozen=True)
class Server:
    """Something under test: where it listens, and the process whose CPU and memory count (None for the engine)."""

    name: str
    target: str
    pid: int | None
    key: str


def compile_native(folder: Path) -> tuple[Path, Path]:
    """Compile the fake engine and the load generator; return their paths."""
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        sys.exit("a C compiler is needed: apt-get install gcc")
    for name in ("fake_engine", "load"):
        subprocess.run([compiler, "-O2", "-Wall", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder / "fake_engine", folder / "load"


def pinned(cpu: str, *argv: object) -> list[str]:
    """Return `argv` as a command that runs on one CPU."""
    return ["taskset", "-c", cpu, *map(str, argv)]


def cpu_seconds(pid: int) -> float:
    """Return user plus system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 20) -> float:
    """Poll `ready` every 2 ms; return the seconds it took."""
    begin = time.perf_counter()
    while not ready():
        if time.perf_counter() - begin > seconds:
            sys.exit(f"{what}: not ready after {seconds:g} s")
        time.sleep(0.002)
    return time.perf_counter() - begin


def answers(port: int, path: str) -> bool:
    """Return whether an HTTP server on the loopback answers `path` at all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


@contextlib.contextmanager
def running(argv: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and end it by its own pid afterwards."""
    process = subprocess.Popen(argv, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def prepare_gateway(folder: Path, engine_socket: Path) -> tuple[dict[str, str], str]:
    """Write the run directory of a gateway with every feature on; return its environment and an API key."""
    run_dir = RunDir(root=folder / "run")
    run_dir.root.mkdir(mode=0o700)
    settings = parse(
        {
            "paths": {"data_dir": str(folder / "data"), "run_dir": str(run_dir.root)},
            "model": {"path": "/nonexistent/bench.gguf", "aliases": ["bench"]},
            "gateway": {"host": "127.0.0.1", "port": GATEWAY_PORT},
            "limits": {
                "requests_per_minute": 1_000_000_000,
                "tokens_per_minute": 1_000_000_000,
                "concurrency": 100_000,
                "monthly_tokens": 1_000_000_000,
                "max_in_flight": 4096,
            },
            "logging": {"format": "json", "access_log": True},
        }
    )
    locations = locate(settings, {})
    snapshot.write(Snapshot(settings=settings, locations=locations), run_dir.snapshot)
    run_dir.engine_key.write_text("engine-key\n", encoding="ascii")
    run_dir.engine_socket.symlink_to(engine_socket)
    command = Path(sys.executable).with_name("llama-gguf")
    made = subprocess.run(
        [command, "keys", "generate", "--name", "bench", "--quiet", "--keys-file", str(locations.keys_file)],
        check=True,
        capture_output=True,
        text=True,
    )
    return {**os.environ, RUN_DIR_VARIABLE: str(run_dir.root)}, made.stdout.strip()


def nginx_config(folder: Path, engine_socket: Path) -> Path:
    """Write the configuration of a one-worker nginx that relays to the engine and refuses keys it does not know."""
    path = folder / "nginx.conf"
    path.write_text(
        f"""
{"user root;" if os.getuid() == 0 else ""}
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream engine {{ server unix:{engine_socket}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{NGINX_PORT};
    default_type application/json;
    if ($http_authorization = "Bearer") {{
      return 401 '{{"error":{{"message":"no","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}}';
    }}
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""",
        encoding="utf-8",
    )
    return path


class Bench:
    """Runs the load generator against servers and keeps what it measured."""

    def __init__(self, load: Path, engine_socket: Path, seconds: float) -> None:
        self._load, self._socket, self._seconds = load, engine_socket, seconds

    def load(self, server: Server, mode: str, connections: int, tokens: int, delay_us: int, **over: Any) -> Any:
        """Run one load and return its JSON result."""
        key, seconds = over.get("key", server.key), over.get("seconds", self._seconds / TURNS)
        argv = pinned(LOAD_CPU, self._load, server.target, key, mode, connections, seconds, tokens, delay_us)
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    def engine_counts(self) -> dict[str, int]:
        """Ask the fake engine for its stream counts."""
        argv = ["curl", "-s", "--unix-socket", str(self._socket), "http://engine/bench"]
        counts: dict[str, int] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        return counts

    def plain(self, server: Server) -> float:
        result = self.load(server, "plain", 64, 16, 0)
        if result["other"] or result["broken"]:
            sys.exit(f"{server.name}: {result}")
        return float(result["requests"] / result["seconds"])

    def undelayed(self, server: Server) -> float:
        result = self.load(server, "stream", 64, 512, 0)
        return float(result["events"] / result["seconds"])

    def paced_cpu(self, server: Server) -> float:
        """Return microseconds of the server's CPU per chunk at 200 streams of 20 ms a token."""
        assert server.pid
        before = cpu_seconds(server.pid)
        result = self.load(server, "once", 200, 200, 20_000, seconds=30)
        return (cpu_seconds(server.pid) - before) * 1e6 / float(result["events"])

    def first_event(self, server: Server) -> float:
        """Return the median microseconds to the first event at 64 paced streams in a steady state."""
        return float(self.load(server, "stream", 64, 10, 20_000, seconds=self._seconds)["p50_us"])

    def bad_keys(self, server: Server) -> float:
        result = self.load(server, "plain", 64, 16, 0, key=KEY_FOR_NOTHING)
        if result["other"] != result["requests"]:
            sys.exit(f"{server.name}: answered a bad key: {result}")
        return float(result["requests"] / result["seconds"])

    def abandoned(self, server: Server) -> dict[str, float]:
        """Leave 50 streams after their first event; return how many the engine lost and after how long."""
        before = self.engine_counts()
        self.load(server, "abandon", 50, 5000, 20_000, seconds=10)
        begin = time.perf_counter()
        while self.engine_counts()["active"] > before["active"] and time.perf_counter() - begin < 5:
            time.sleep(0.005)
        seconds = time.perf_counter() - begin
        return {"cancelled": self.engine_counts()["aborted"] - before["aborted"], "seconds": seconds}

    def idle_stream_bytes(self, server: Server, streams: int = 500) -> float:
        """Return resident bytes per stream that is open and silent."""
        assert server.pid
        before = resident_bytes(server.pid)
        argv = pinned(LOAD_CPU, self._load, server.target, server.key, "hold", streams, 2, 2, 60_000_000)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(0.5)
            after = resident_bytes(server.pid)
            process.communicate()
        return (after - before) / streams


def measure(bench: Bench, servers: dict[str, Server], rounds: int, console: Console) -> dict[str, Any]:
    """Run every scenario `rounds` times, the servers taking turns; return all figures."""
    scenarios: dict[str, Callable[[Server], float]] = dict(
        zip(
            TARGETS,
            (bench.plain, bench.undelayed, bench.paced_cpu, bench.first_event, bench.bad_keys),
            strict=True,
        )
    )
    closed_loops = (bench.plain, bench.undelayed, bench.bad_keys)
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in scenarios}
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds}", style="dim")
        for name, scenario in scenarios.items():
            # The engine has no CPU of its own here and knows no keys.
            taking_part = [s for s in servers.values() if s.pid or scenario not in (bench.paced_cpu, bench.bad_keys)]
            turns: dict[str, list[float]] = {server.name: [] for server in taking_part}
            for turn in range(TURNS if scenario in closed_loops else 1):
                for server in taking_part if (number + turn) % 2 == 0 else reversed(taking_part):
                    turns[server.name].append(scenario(server))
            for server_name, found in turns.items():
                if min(found) <= 0:
                    sys.exit(f"{name}: {server_name} got nothing done; is the machine busy, or --seconds too short?")
                figures[name].setdefault(server_name, []).append(statistics.mean(found))
    return figures


def meets(better: str, ratio: float, limit: float) -> bool:
    """Return whether a ratio is on the good side of a limit."""
    return ratio >= limit if better == "min" else ratio <= limit


def summarise(figures: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Reduce the rounds to medians, and ratios to nginx taken round by round."""
    rows = []
    for name, by_server in figures.items():
        ratios = [ours / theirs for ours, theirs in zip(by_server["gateway"], by_server["nginx"], strict=True)]
        better, target, stretch = TARGETS[name]
        ratio = statistics.median(ratios)
        limits = (("stretch", stretch), ("met", target))
        rows.append(
            {
                "scenario": name,
                **{server: statistics.median(values) for server, values in by_server.items()},
                "ratio": ratio,
                "ratio_range": [min(ratios), max(ratios)],
                "target": f"{'≥' if better == 'min' else '≤'} {target:g} ({stretch:g})",
                "verdict": next((word for word, limit in limits if meets(better, ratio, limit)), "short"),
            }
        )
    return rows


def show(rows: list[dict[str, Any]], extras: dict[str, Any], console: Console) -> None:
    """Print the table of ratios and the absolute figures."""
    table = Table("scenario", "direct", "nginx", "gateway", "ratio", "range", "target (stretch)", "verdict")
    for row in rows:
        low, high = row["ratio_range"]
        cells = [f"{row[name]:,.1f}" if name in row else "" for name in ("direct", "nginx", "gateway")]
        ratio = f"{row['ratio']:.2f}"
        table.add_row(row["scenario"], *cells, ratio, f"{low:.2f}-{high:.2f}", row["target"], row["verdict"])
    console.print(table)
    for name, value in extras.items():
        console.print(f"{name}: {value}")


def main() -> None:
    """Set everything up, measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of closed-loop load, for each server and round")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if not (nginx := shutil.which("nginx") or shutil.which("/usr/sbin/nginx")):
        sys.exit("nginx is needed: apt-get install --no-install-recommends nginx-light")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        fake_engine, load = compile_native(folder)
        engine_socket = folder / "engine.sock"
        stack.enter_context(running(pinned(LOAD_CPU, fake_engine, engine_socket)))
        wait_for(engine_socket.exists, "fake engine")
        environment, key = prepare_gateway(folder, engine_socket)
        gateway_argv = pinned(SERVER_CPU, sys.executable, "-P", "-m", "llama_gguf.gateway")
        log = stack.enter_context((folder / "gateway.log").open("wb"))
        starts = []
        for _ in range(options.rounds):
            with running(gateway_argv, env=environment, stdout=log, stderr=log):
                starts.append(wait_for(lambda: answers(GATEWAY_PORT, "/ping"), "gateway"))
        gateway = stack.enter_context(running(gateway_argv, env=environment, stdout=log, stderr=log))
        wait_for(lambda: answers(GATEWAY_PORT, "/ping"), "gateway")
        time.sleep(1)  # the gateway's view of the engine becomes "ready"
        start_bytes = resident_bytes(gateway.pid)
        config = nginx_config(folder, engine_socket)
        master = stack.enter_context(running(pinned(SERVER_CPU, nginx, "-c", config)))
        wait_for(lambda: answers(NGINX_PORT, "/health"), "nginx")
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text(encoding="ascii").split()
        servers = {
            "direct": Server("direct", f"unix:{engine_socket}", None, key),
            "nginx": Server("nginx", f"127.0.0.1:{NGINX_PORT}", int(children[0]), key),
            "gateway": Server("gateway", f"127.0.0.1:{GATEWAY_PORT}", gateway.pid, key),
        }
        bench = Bench(load, engine_socket, options.seconds)
        idle = bench.idle_stream_bytes(servers["gateway"])
        figures = measure(bench, servers, options.rounds, console)
        rows = summarise(figures)
        extras = {
            "abandoned streams, of 50": {name: bench.abandoned(servers[name]) for name in ("nginx", "gateway")},
            "gateway resident at start, MB (target 60)": round(start_bytes / 1e6, 1),
            "gateway resident per idle stream, KB (target 25)": round(idle / 1e3, 1),
            "nginx resident per idle stream, KB": round(bench.idle_stream_bytes(servers["nginx"]) / 1e3, 1),
            "gateway exec to first answer, s (target 0.4)": round(statistics.median(starts), 3),
        }
        show(rows, extras, console)
        if options.json:
            options.json.write_text(json.dumps({"rows": rows, "extras": extras, "rounds": figures}, indent=1))


if __name__ == "__main__":
    main()
