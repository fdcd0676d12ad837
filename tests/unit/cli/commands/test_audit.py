"""`llama-gguf audit`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from llama_gguf.audit import AuditLog
from llama_gguf.cli.commands import audit
from llama_gguf.cli.keys_options import find
from llama_gguf.errors import ExitCode, KeysError
from llama_gguf.keys.admin import KeyAdmin
from llama_gguf.keys.store import KeyStore
from support.keys_made import NOW


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    writer = AuditLog(path, clock=lambda: NOW)
    for number in range(3):
        writer.append(actor="cli:root", action="keys.update", target=f"key\n{number}", details={"s": ["a", "b"]})
    return path


def run(log: Path, *arguments: str) -> Result:
    return CliRunner().invoke(audit.audit, [*arguments, "--file", str(log)], standalone_mode=False)


def test_a_sound_log(log: Path) -> None:
    result = run(log, "verify")
    assert result.exception is None
    first, second = result.stdout.splitlines()
    assert first == f"{log}: 3 entries, all intact"
    head = second.removeprefix("head ")
    assert run(log, "verify", "--head", head).exception is None
    assert json.loads(run(log, "verify", "--json").stdout) == {
        "ok": True,
        "entries": 3,
        "head": head,
        "bad_line": None,
        "problem": None,
    }


def test_a_tampered_line_is_found(log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"key\\n1", b"key\\n9"))
    error = run(log, "verify").exception
    assert isinstance(error, KeysError)
    assert error.message == f"{log}:2: this line was changed: its hash does not match its content"
    assert error.exit_code is ExitCode.CONFIG
    told = json.loads(run(log, "verify", "--json").stdout)
    assert (told["ok"], told["bad_line"], told["entries"]) == (False, 2, 1)


def test_a_missing_head_file_has_no_line(log: Path) -> None:
    log.with_name("audit.jsonl.head").unlink()
    error = run(log, "verify").exception
    assert isinstance(error, KeysError)
    assert error.message == f"{log}: audit.jsonl.head is missing, so truncation cannot be detected"


def test_a_head_that_is_none(log: Path) -> None:
    error = run(log, "verify", "--head", "7").exception
    assert isinstance(error, click.UsageError)
    assert "SEQ:HASH" in error.format_message()


def test_show_prints_the_newest(log: Path) -> None:
    shown = run(log, "show", "--limit", "2").stdout.splitlines()
    assert shown == [f"    {seq}  2026-11-22T12:00:00Z  cli:root  keys.update  key?{seq - 1}  s=a,b" for seq in (2, 3)]
    entries = json.loads(run(log, "show", "--json").stdout)
    assert [entry["seq"] for entry in entries] == [1, 2, 3]


def test_the_configuration_says_where(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{path: /models/none.gguf}}\npaths: {{data_dir: {tmp_path}}}\n")
    result = CliRunner().invoke(audit.audit, ["show", "--config", str(config)], standalone_mode=False)
    assert isinstance(result.exception, KeysError)
    assert result.exception.message == f"{tmp_path}/audit.jsonl: there is no audit log"


def test_an_emptied_log_shows_against_the_keys_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{path: /models/none.gguf}}\npaths: {{data_dir: {tmp_path}}}\n")
    keys, log = find(config, (), None).keys_file, tmp_path / "audit.jsonl"
    KeyAdmin(KeyStore(keys), AuditLog(log), actor="t").generate("a")
    arguments = ["verify", "--config", str(config)]
    assert CliRunner().invoke(audit.audit, arguments, standalone_mode=False).exception is None
    log.unlink()
    log.with_name("audit.jsonl.head").unlink()
    error = CliRunner().invoke(audit.audit, arguments, standalone_mode=False).exception
    assert isinstance(error, KeysError)
    missing = "is missing, and with it all up to entry 1, which the keys file records"
    assert (error.code, error.message) == ("audit-tampered", f"{log}:1: this line {missing}")
