"""`llama-gguf usage` on a file that the gateway's own code wrote."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.commands.usage import usage
from llama_gguf.gateway.telemetry.usage_store import UsageStore

DAY = 86_400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "usage.sqlite3"
    for days_ago, key_id, model in ((0, "alice", "small"), (0, "bob", "large"), (20, "alice", "small")):
        now = time.time() - days_ago * DAY
        store = UsageStore(path, clock=lambda now=now: now)  # type: ignore[misc]
        store.open()
        store.record(key_id, model, requests=1, errors=key_id == "bob", prompt=1000, cached=400, completion=50)
        store.close()
    return path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(usage, [str(argument) for argument in arguments])


def test_a_table_by_key_with_its_sums(file: Path) -> None:
    done = invoke("--file", file)
    assert done.exit_code == 0
    lines = [[cell.strip() for cell in line.strip("│┃|").split("│")] for line in done.output.splitlines()]
    assert ["alice", "2", "0", "2,000", "800", "100", "2,100"] in lines
    assert ["bob", "1", "1", "1,000", "400", "50", "1,050"] in lines
    assert ["Total", "3", "1", "3,000", "1,200", "150", "3,150"] in lines


@pytest.mark.parametrize("since", ["7d", "1h", "0", (dt.datetime.now(dt.UTC) - dt.timedelta(3)).date().isoformat()])
def test_since_leaves_out_what_is_older(file: Path, since: str) -> None:
    answer = json.loads(invoke("--file", file, "--since", since, "--json").output)
    assert [(row["key"], row["requests"]) for row in answer["usage"]] == [("alice", 1), ("bob", 1)]


@pytest.mark.parametrize(("by", "names"), [("model", ["small", "large"]), ("day", None)])
def test_other_groups(file: Path, by: str, names: list[str] | None) -> None:
    answer = json.loads(invoke("--file", file, "--by", by, "--json").output)
    found = [row[by] for row in answer["usage"]]
    assert found == (names or sorted(found))
    assert sum(row["total_tokens"] for row in answer["usage"]) == 3150
    if by == "day":
        today = dt.datetime.now(dt.UTC).date()
        assert dt.date.fromisoformat(found[0]) in {today - dt.timedelta(20), today - dt.timedelta(21)}


def test_one_row_needs_no_sum(file: Path) -> None:
    assert "Total" not in invoke("--file", file, "--by", "day", "--since", "2d").output.replace("Total tokens", "")


def test_nothing_used_yet(tmp_path: Path) -> None:
    done = invoke("--file", tmp_path / "none.sqlite3", "--since", "2026-01-31")
    assert done.exit_code == 0
    assert "no usage since 2026-01-31" in done.output


@pytest.mark.parametrize("since", ["yesterday", "7 dogs", "999999w"])
def test_a_time_that_is_none_is_a_usage_error(file: Path, since: str) -> None:
    done = invoke("--file", file, "--since", since)
    assert done.exit_code == 2
    assert "is not a duration or date" in done.output


def test_a_broken_file_is_told_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "usage.sqlite3"
    path.write_text("no database " * 1000)
    assert run(["usage", "--file", str(path)]) == 69
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "hint: limits.usage_file" in said


def test_the_file_comes_from_the_configuration(file: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model:\n  path: {tmp_path / 'm.gguf'}\nlimits:\n  usage_file: {file}\n")
    answer = json.loads(invoke("--config", config, "--json").stdout)
    assert answer["file"] == str(file)
    assert len(answer["usage"]) == 2
