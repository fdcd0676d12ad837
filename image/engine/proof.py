"""Prove an engine on this machine: run llama-server on a small model of each weight type and compare its logits.

    python image/engine/proof.py --server .venv/lib/python3.11/site-packages/bin/llama-server

An engine can compile, start, and then crash by an illegal instruction on this CPU, or give wrong results: only running
it shows that. Each model (proof_model.py) processes a prompt long enough for the matrix-matrix kernels, then single
tokens for the matrix-vector kernels; the tokens are fixed, so that a wrong output does not change the next input.
proof_expected.json has the log-probabilities of the plain kernels (variant x64, no repacking) and the tolerance.
Connects only to its own unix socket; its processes have exited when it returns.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import proof_model
from image.engine.proof_model import WEIGHT_TYPES, WeightType

EXPECTED_FILE = Path(__file__).with_name("proof_expected.json")
VARIANT_VARIABLE = "GGML_CPU_VARIANT"
"""Selects the CPU backend of an engine that has several (patches.cmake, part 6)."""

TOLERANCE, PLAIN_TOLERANCE = 0.3, 0.1
"""Maximum difference of a log-probability, for quantised weights and for plain numbers; their standard deviation is
1.3. Of thirteen x86 variants (x64 to zen4) the largest were 0.088 and 0.017, by rounding; a wrong kernel is off by
units."""

PROMPT_TOKENS, STEPS = 100, 4
_START_SECONDS, _RESPONSE_SECONDS = 60.0, 60.0
_THREADS = 2  # more than one, so that the division of work among threads is proven too


class EngineError(Exception):
    """The engine crashed, hung or gave an invalid response; the message says which."""


class BusyMachineError(EngineError):
    """The engine timed out, or got SIGKILL: a busy machine, or one without free memory, causes that too."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The log-probabilities of the whole vocabulary at each step, and how much each may differ."""

    tolerance: float
    log_probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one weight type: the largest difference, or why there is none."""

    weight_type: str
    deviation: float | None
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the engine is correct for this type."""
        return not self.failure


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_RESPONSE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)  # a socket address is limited to 107 bytes
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


def load_expected(path: Path = EXPECTED_FILE) -> dict[str, Expectation]:
    """Read the expected values."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Expectation(entry["tolerance"], tuple(tuple(step) for step in entry["log_probabilities"]))
        for name, entry in document.items()
    }


def prompt(length: int) -> list[int]:
    """Return the first `length` tokens of the fixed prompt, without special tokens."""
    return [4 + index * 37 % (proof_model.VOCABULARY - 4) for index in range(length)]


def run_type(
    server: Path, kind: WeightType, scratch: Path, variant: str | None, options: Sequence[str] = ()
) -> list[list[float]]:
    """Return the log-probabilities by token at each step. Raises EngineError."""
    model = scratch / f"{kind.name}.gguf"
    model.write_bytes(proof_model.model(kind))
    with _running(server, model, variant, options) as complete:
        return [_probabilities(complete(prompt(PROMPT_TOKENS + step))) for step in range(STEPS)]


@contextlib.contextmanager
def _running(server: Path, model: Path, variant: str | None, options: Sequence[str]) -> Iterator[Any]:
    path, log = model.with_suffix(".sock"), model.with_suffix(".log")
    argv = [str(server.absolute()), "--model", str(model), "--host", path.name, "--ctx-size", str(proof_model.CONTEXT)]
    argv += ["--parallel", "1", "--threads", str(_THREADS), "--fit", "off", "--offline", "--no-ui", "--device", "none"]
    env = {"PATH": os.defpath, "HOME": str(model.parent), "XDG_CONFIG_HOME": str(model.parent)}
    env["OMP_WAIT_POLICY"] = "passive"  # spinning threads block each other on a busy machine
    if variant:
        env[VARIANT_VARIABLE] = variant
    path.unlink(missing_ok=True)  # left by a killed process: the next could not bind
    with log.open("wb") as sink, _started([*argv, *options], env, model.parent, sink) as child:

        def complete(tokens: list[int]) -> dict[str, Any]:
            body = {"prompt": tokens, "n_predict": 1, "n_probs": proof_model.VOCABULARY, "temperature": 0.0}
            try:
                return _request(path, "POST", "/completion", body | {"cache_prompt": True})
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _failure(child, log, f"invalid response: {error!r}") from error

        try:
            _wait_until_ready(child, path, log)
            yield complete
        finally:
            child.kill()


def _started(
    argv: list[str], env: Mapping[str, str], folder: Path, sink: IO[bytes]
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    try:
        return subprocess.Popen(
            argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise EngineError(f"{argv[0]} cannot be run: {error.strerror}") from error


def _wait_until_ready(child: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            _request(path, "GET", "/health", None)
            return
        time.sleep(0.02)
    raise _failure(child, log, f"not ready after {_START_SECONDS:.0f} s")


def _request(path: Path, method: str, url: str, body: object) -> dict[str, Any]:
    with contextlib.closing(_UnixConnection(path)) as connection:
        data = None if body is None else json.dumps(body)
        connection.request(method, url, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != http.client.OK:
            raise ValueError(f"status {response.status}: {text[:200].decode(errors='replace')}")
        found = json.loads(text)
        return found if isinstance(found, dict) else {}


def _failure(child: subprocess.Popen[bytes], log: Path, otherwise: str) -> EngineError:
    with contextlib.suppress(subprocess.TimeoutExpired):  # after an incomplete response it is about to exit
        child.wait(2.0)
    if child.returncode is None:
        return BusyMachineError(otherwise)
    killed = f"was terminated by {signal.Signals(-child.returncode).name}" if child.returncode < 0 else ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last_line = f"; its last line: {lines[-1].strip()[:200]}" if lines else ""
    kind = BusyMachineError if child.returncode == -signal.SIGKILL else EngineError
    return kind(f"llama-server {killed or f'exited with status {child.returncode}'}{last_line}")


def _probabilities(response: dict[str, Any]) -> list[float]:
    try:
        listed = response["completion_probabilities"][0]["top_logprobs"]
        by_token = {int(item["id"]): float(item["logprob"]) for item in listed}
        return [by_token[token] for token in range(proof_model.VOCABULARY)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"the response lacks log-probabilities: {error!r}") from error


def judge(kind: str, found: Sequence[Sequence[float]], expected: Expectation) -> Result:
    """Compare an engine's values with the expected ones. Pure."""
    pairs = [pair for steps in zip(found, expected.log_probabilities, strict=True) for pair in zip(*steps, strict=True)]
    deviation = max((abs(a - b) if a == a else float("inf") for a, b in pairs), default=float("inf"))  # noqa: PLR0124 - NaN
    if deviation <= expected.tolerance:
        return Result(kind, deviation)
    return Result(kind, deviation, f"wrong values: off by {deviation:.3f}, tolerance {expected.tolerance:.3f}")


def prove(
    server: Path,
    *,
    variant: str | None = None,
    options: Sequence[str] = (),
    expected: Mapping[str, Expectation] | None = None,
) -> tuple[Result, ...]:
    """Run every weight type on `server`; `variant` is the CPU backend to load where there are several.

    A type that fails as on a busy machine is run once more alone, until one fails alone too: then it is the engine.
    """
    expected = load_expected() if expected is None else expected

    to_retry: list[WeightType] = []

    def one(kind: WeightType) -> Result:
        try:
            return judge(kind.name, run_type(server, kind, Path(scratch), variant, options), expected[kind.name])
        except EngineError as error:
            if isinstance(error, BusyMachineError):
                to_retry.append(kind)
            return Result(kind.name, None, str(error))

    kinds = [kind for kind in WEIGHT_TYPES if kind.name in expected]
    with (
        tempfile.TemporaryDirectory(prefix="proof.") as scratch,
        ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool,
    ):
        results = {result.weight_type: result for result in pool.map(one, kinds)}
        for kind in to_retry[:]:
            results[kind.name] = one(kind)
            if not results[kind.name].passed:
                break
    return tuple(results.values())


def variants(server: Path) -> tuple[str, ...]:
    """Return the CPU backends beside `server` that this machine can run, by ggml's own scores; best first.

    Empty for an engine with one that is linked in. Each is queried in a process of its own, since that runs its code.
    """
    query = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).ggml_backend_score())"
    scores: dict[str, int] = {}
    for library in server.parent.glob("libggml-cpu-*.so"):
        command = [sys.executable, "-c", query, str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        scores[library.stem.removeprefix("libggml-cpu-")] = int(done.stdout) if done.returncode == 0 else 0
    return tuple(name for name in sorted(scores, key=lambda name: -scores[name]) if scores[name])


def table(results: Sequence[Result]) -> str:
    """Return the results as a text table."""
    return "".join(
        f"{result.weight_type:8} {'ok' if result.passed else 'FAILED':6} "
        + (result.failure or f"largest difference {result.deviation:.4f}")
        + "\n"
        for result in results
    )


def write_expected(server: Path, variant: str) -> None:
    """Write EXPECTED_FILE from the plain kernels of `server`."""
    with tempfile.TemporaryDirectory(prefix="proof.") as scratch:
        document = {}
        for kind in WEIGHT_TYPES:
            steps = run_type(server, kind, Path(scratch), variant, ["--no-repack"])
            document[kind.name] = {
                "tolerance": TOLERANCE if kind.block_size > 1 else PLAIN_TOLERANCE,
                "log_probabilities": [[round(value, 3) for value in step] for step in steps],
            }
    text = json.dumps(document, indent=1)
    text = re.sub(r"\[\s+(-?[\d.]+(?:,\s+-?[\d.]+)*)\s+\]", lambda m: "[" + re.sub(r"\s+", "", m[1]) + "]", text)
    EXPECTED_FILE.write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/engine/proof.py", description="Prove llama-server on this machine.")
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--variant", help="the CPU backend to load, of an engine that has several")
    parser.add_argument("--option", action="append", default=[], help="one more argument for llama-server")
    parser.add_argument("--write-expected", action="store_true", help="write the expected values again")
    options = parser.parse_args(argv)
    if options.write_expected:
        write_expected(options.server, options.variant)
        return 0
    results = prove(options.server, variant=options.variant, options=options.option)
    sys.stdout.write(table(results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
