"""Every command in the README, run in order against what `make run` starts: a newcomer's first ten minutes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port

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
        self.port, self.health_port = free_port(), free_port()
        self.broken = folder / "broken.yaml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LLAMA_GGUF")},
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
                process.wait(30)
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
        answer = newcomer.run(pasted[1])
        assert '"choices"' in answer.stdout, answer

        newcomer.environment["KEY"] = key[0]
        for command in commands:
            if command.startswith("export KEY="):
                continue
            done = newcomer.run(command)
            expected = MEANT_TO_FAIL.get(command, 0)
            assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            if "chat/completions" in command:
                assert '"choices"' in done.stdout
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
