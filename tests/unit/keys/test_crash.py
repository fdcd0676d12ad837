"""`kill -9` at every step of every change leaves the old keys file or the new one, and nothing that is in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.audit import AuditLog, verify
from llama_gguf.keys.admin import KeyAdmin
from llama_gguf.keys.file_format import render
from llama_gguf.keys.record import KeyFile, KeyRecord
from llama_gguf.keys.store import KeyStore, load
from support.keys_made import ALICE, BOB, record

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
SERVICES = TESTS.parent / "services"
OLD = render(KeyFile((record(), record("bob", BOB))))
PLAINTEXT = f"# old\nalice:{ALICE}:60\n"
BEFORE = {"generate": None, "update": OLD, "rotate": OLD, "import": PLAINTEXT}


class Writer:
    """The program that forks, changes and dies."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def change(self, directory: Path, change: str, last: int) -> tuple[int, list[str]]:
        """Change the keys file in `directory` up to step `last` (0: all of it); return exit code and steps."""
        directory.mkdir()
        if (text := BEFORE[change]) is not None:
            (directory / "keys.json").write_text(text)
            (directory / "keys.json").chmod(0o600)
        assert self._process.stdin
        assert self._process.stdout
        print(last, change, directory / "keys.json", file=self._process.stdin, flush=True)
        code, *steps = self._process.stdout.readline().split()
        return int(code), steps


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    program = [sys.executable, "-m", "support.keys_writer"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(SERVICES)))}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Writer(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0


def comparable(records: tuple[KeyRecord, ...]) -> list[dict[str, object]]:
    """What a change is known by; secrets, times and nonces differ from run to run."""
    return [
        {"id": key.id, "note": key.note, "rpm": key.requests_per_minute, "turns": len(key.rotations)} for key in records
    ]


@pytest.mark.parametrize("change", sorted(BEFORE))
def test_killed_at_every_step(change: str, tmp_path: Path, writer: Writer) -> None:
    code, steps = writer.change(tmp_path / "whole", change, 0)
    assert code == 0
    assert steps.index("appended") < len(steps) - 1 - steps[::-1].index("renamed")  # the audit line comes first
    new = comparable(load(tmp_path / "whole" / "keys.json").keys.records)
    outcomes = []
    for last in range(1, len(steps) + 1):
        directory = tmp_path / f"{last}-{steps[last - 1]}"
        assert writer.change(directory, change, last) == (-9, steps[:last])
        outcomes.append(inspect(directory, BEFORE[change], new))
        recover(directory, change)
    # First the old file, from one step on the new one, and never back.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}


def inspect(directory: Path, before: str | None, new: list[dict[str, object]]) -> int:
    """Return 0 if the keys file is byte for byte the old one, 1 if it is the new one; anything else fails."""
    path = directory / "keys.json"
    if (path.read_text() if path.exists() else None) == before:
        return 0
    assert comparable(load(path).keys.records) == new
    assert path.stat().st_mode & 0o777 == 0o600
    return 1


def recover(directory: Path, change: str) -> None:
    """The next command works at once, sweeps what was left, and the audit log is whole."""
    path = directory / "keys.json"
    audit = directory / "audit.jsonl"
    admin = KeyAdmin(KeyStore(path, lock_timeout_seconds=0), AuditLog(audit), actor="test")
    if change == "import":
        admin.import_file(path)
        assert ALICE not in path.read_text()
    admin.generate("next")
    assert load(path).keys.find("next")
    assert verify(audit).ok
    assert not [entry.name for entry in directory.iterdir() if entry.name.endswith("keys.json.new")]


def test_many_processes_lose_no_change(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    code = (
        "import sys, pathlib; from llama_gguf.keys.admin import KeyAdmin; from llama_gguf.audit import AuditLog\n"
        "from llama_gguf.keys.store import KeyStore; path = pathlib.Path(sys.argv[1])\n"
        "admin = KeyAdmin(KeyStore(path), AuditLog(path.with_name('audit.jsonl')), actor='t')\n"
        "for number in range(5): admin.generate(f'{sys.argv[2]}-{number}')"
    )
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), f"w{n}"], env=environment) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert {key.id for key in load(path).keys.records} == {f"w{n}-{m}" for n in range(4) for m in range(5)}
    verdict = verify(tmp_path / "audit.jsonl")
    assert (verdict.ok, verdict.entries) == (True, 20)
