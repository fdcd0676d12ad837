"""Every command in the README, run in order against what `make run` starts: a newcomer's first ten minutes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_ports
from support.terminal import terminal

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.engine, pytest.mark.starter]

# Exit statuses other than 0 that a command is there to show.
MEANT_TO_FAIL = {".venv/bin/llama-gguf check /tmp/broken.yaml": 78}
# `make test` is what runs this test.
NOT_RUN_HERE = {"make run", "make test"}


def readme_commands() -> list[str]:
    """Return the commands of the README's console blocks, continuation lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif found and found[-1].endswith("\\"):
                found[-1] = found[-1][:-1] + line.strip()
    return [re.sub(r"\s+#.*$", "", command) for command in found]


class Newcomer:
    """A person at a shell in the checkout, with a data directory and ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.port, self.health_port = free_ports(2)
        self.broken = folder / "broken.yaml"
        # Without what `make test` hands on to the programs below it: theirs would be a make within a make.
        foreign = ("LLAMA_GGUF", "MAKE", "MFLAGS")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "XDG_DATA_HOME": str(folder / "share"),
            "LLAMA_GGUF__PATHS__DATA_DIR": str(folder / "data"),
            "LLAMA_GGUF__PATHS__RUN_DIR": str(folder / "run"),
            "LLAMA_GGUF__GATEWAY__PORT": str(self.port),
            "LLAMA_GGUF__HEALTH__PORT": str(self.health_port),
        }

    def localise(self, command: str) -> str:
        """Return `command` with this newcomer's ports and scratch file."""
        return (
            command.replace("localhost:8000", f"localhost:{self.port}")
            .replace("localhost:8001", f"localhost:{self.health_port}")
            .replace("/tmp/broken.yaml", str(self.broken))
        )

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", self.localise(command)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/ping", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def assert_well_said(answer: str) -> None:
    """A chat's answer is words for people: it ended by itself, or was cut off in the middle of plain prose."""
    (choice,) = json.loads(answer)["choices"]
    text = choice["message"]["content"]
    assert not re.search(r"<\|?|\|>|\[/?INST\]|im_start|im_end|endoftext", text), text
    assert len(re.findall(r"[A-Za-z']{2,}", text)) >= 3, text
    if choice["finish_reason"] != "stop":
        assert choice["finish_reason"] == "length"
        assert sum(character.isascii() for character in text) / len(text) > 0.9, text


def programs_of(run_dir: Path) -> list[str]:
    """Command lines of all processes that an appliance in `run_dir` has started, or runs as."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if f"LLAMA_GGUF_RUN_DIR={run_dir}".encode() in variables:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


@contextlib.contextmanager
def make_run(newcomer: Newcomer, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make run` in a session of its own, ended the way Ctrl-C ends it."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["make", "run", "PYTHON=" + sys.executable],
            cwd=ROOT,
            env=newcomer.environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def test_a_newcomer_gets_through_the_readme(tmp_path: Path, starter_model: Path) -> None:
    assert starter_model.is_file()
    newcomer = Newcomer(tmp_path)
    log = tmp_path / "make-run.log"
    commands = [command for command in readme_commands() if command not in NOT_RUN_HERE]
    assert {"make run", "make test"} <= set(readme_commands())
    assert len(commands) >= 10
    with make_run(newcomer, log) as process:
        deadline = time.monotonic() + 60
        while not newcomer.ready():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        printed = log.read_text(encoding="utf-8")
        key = re.search(r"sk-[A-Za-z0-9_-]{43}", printed)
        assert key, printed

        pasted = re.search(r"^(?:Try: )?(curl .*)$", printed, re.MULTILINE)
        assert pasted, printed
        assert_well_said(newcomer.run(pasted[1]).stdout)

        newcomer.environment["KEY"] = key[0]
        for command in commands:
            if command.startswith("export KEY="):
                continue
            done = newcomer.run(command)
            expected = MEANT_TO_FAIL.get(command, 0)
            assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            if "chat/completions" in command:
                assert_well_said(done.stdout)
            if command.endswith("/ping"):
                assert done.stdout.startswith("HTTP/1.1 200")
            if expected == 78:
                assert 'did you mean "port"?' in done.stderr + done.stdout
            assert key[0] not in done.stdout + done.stderr
        assert len(programs_of(tmp_path / "run")) >= 4
    # make ends itself by the signal once `up`, which got it too, has exited; `up`'s own status is tested elsewhere.
    assert process.returncode in (0, -signal.SIGINT), log.read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "engine.sock").exists()
    assert programs_of(tmp_path / "run") == []
    assert log.read_text(encoding="utf-8").count(key[0]) == 2  # printed, and in the line to paste


DYING = """#!/bin/sh
case "$*" in *--version*|*--list-devices*) exit 0;; esac
for number in $(seq 30); do echo "0.00.000.0$number I load_model: step $number of loading, told at some length"; done
kill -s $SIGNAL $$
"""


@pytest.mark.parametrize(
    ("case", "status", "told"),
    [
        ("ILL", 69, ("terminated by SIGILL", "cause: this llama-server uses instructions")),
        ("SEGV", 69, ("terminated by SIGSEGV", "cause: llama-server crashed")),
        ("model", 78, ("cause: ", "is not a valid GGUF file", "fix: download it again")),
        ("port", 69, ("cannot listen on", "fix: ")),
        ("config", 78, ("unknown-key", 'did you mean "slots"?')),
    ],
)
def test_make_run_ends_well(tmp_path: Path, starter_model: Path, case: str, status: int, told: tuple[str, ...]) -> None:
    """At a terminal of 100 columns: make says the status of `up`, and the reason fits on the screen, said once."""
    newcomer = Newcomer(tmp_path)
    engine = tmp_path / "llama-server"
    engine.write_text(DYING.replace("$SIGNAL", case), encoding="utf-8")
    engine.chmod(0o755)
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"nothing" * 100)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{path: {garbage if case == 'model' else starter_model}}}\n"
        f"engine: {{{'slotz' if case == 'config' else 'slots'}: 2, gpu_layers: 0, context_per_slot: 512}}\n"
        "supervisor: {start_retries: 1, max_restarts: 1}\n",
        encoding="utf-8",
    )
    if case in {"ILL", "SEGV"}:
        newcomer.environment["LLAMA_GGUF__ENGINE__BINARY"] = str(engine)
    with (
        socket.create_server(("", newcomer.port if case == "port" else 0)),
        terminal(tmp_path / "screen.txt", columns=100) as tty,
    ):
        done = subprocess.run(
            ["make", "run", "PYTHON=" + sys.executable, f"CONFIG={config}"],
            cwd=ROOT,
            env=newcomer.environment,
            stdin=subprocess.DEVNULL,
            stdout=tty,
            stderr=tty,
            timeout=90,
            check=False,
        )
    screen = (tmp_path / "screen.txt").read_text(encoding="utf-8")
    rows = screen.splitlines()
    assert done.returncode == 2  # what GNU make makes of every failed recipe
    assert re.fullmatch(rf"make: \*\*\* \[Makefile:\d+: run\] Error {status}", rows[-1]), screen
    start = next((number for number, row in enumerate(rows) if row.startswith("llama-gguf: ")), 0)
    reason = rows[start:]
    assert len(reason) <= 24
    assert max(len(row) for row in reason if str(tmp_path) not in row) <= 100  # a path is never broken
    for words in told:
        assert words in " ".join(screen.split())
    assert "argv=" not in screen
    assert "settings=" not in screen
    assert "Traceback" not in screen
    assert screen.count("step 30 of") == (1 if case in {"ILL", "SEGV"} else 0)
    assert programs_of(tmp_path / "run") == []
