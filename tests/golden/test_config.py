"""The corpus of bad configurations: each has its golden message, and the JSON Schema sees what a schema can see.

`UPDATE_GOLDEN=1` rewrites the messages; read the diff before it is committed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from llama_gguf.errors import Problem
from llama_gguf.settings.json_schema import json_schema
from llama_gguf.settings.loading.load import InvalidConfigError, load, loads
from llama_gguf.settings.loading.yaml_document import parse
from llama_gguf.settings.messages.codes import PROBLEM_CODES
from llama_gguf.settings.messages.report import count, explain

ROOT = Path(__file__).resolve().parents[2]
BAD = ROOT / "tests/golden/config/bad"
FILES = sorted(BAD.glob("*.yaml"))
EXAMPLES = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]
NOT_IN_A_SCHEMA = {"port-clash", "ubatch-over-batch", "queue-per-key", "context-too-large", "draft-is-model"}
"""Codes of checks that compare two values, which JSON Schema cannot."""


def environment(file: Path) -> dict[str, str]:
    """Return the variables of the `.env` file beside `file`."""
    companion = file.with_suffix(".env")
    lines = companion.read_text(encoding="utf-8").splitlines() if companion.exists() else []
    return dict(line.split("=", 1) for line in lines)


def problems_of(file: Path) -> tuple[tuple[Problem, ...], str]:
    """Load a bad file from its own directory, so that messages name it without a path."""
    with pytest.raises(InvalidConfigError) as caught:
        load(Path(file.name), environment(file))
    return caught.value.problems, caught.value.text


@pytest.fixture(autouse=True)
def _in_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bad_file_gets_its_golden_message(file: Path) -> None:
    problems, text = problems_of(file)
    message = f"{explain(problems, text)}\n{count(problems)}\n"
    golden = file.with_suffix(".txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(message, encoding="utf-8")
    assert message == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bad_file_is_told_in_our_words_with_a_place_and_no_secret(file: Path) -> None:
    problems, text = problems_of(file)
    rendered = explain(problems, text)
    assert not re.search(r"pydantic|[Ii]nput should|validation error|Traceback|\bNone\b|\bdict\b|\btuple\b", rendered)
    assert not re.search(r"hunter2|sk-0123456789|hf_abcdefghij", rendered)
    for problem in problems:
        assert problem.code in PROBLEM_CODES
        assert problem.line > 0 or "variable" in problem.source or problem.code in ("not-utf8", "no-model")


def test_corpus_is_large_and_each_file_is_a_different_mistake() -> None:
    assert len(FILES) >= 100
    contents = {file.read_bytes() + repr(environment(file)).encode() for file in FILES}
    assert len(contents) == len(FILES)
    assert {file.stem for file in BAD.glob("*.txt")} == {file.stem for file in FILES}


def schema_could_see(file: Path) -> bool:
    """Return whether a JSON Schema can know that `file` is wrong: it parses, and something in it is wrong alone."""
    problems, text = problems_of(file)  # no text: it could not be read
    if not text or file.with_suffix(".env").exists() or parse(text, "").problems:
        return False
    return any(problem.severity == "error" and problem.code not in NOT_IN_A_SCHEMA for problem in problems)


def test_schema_rejects_the_bad_files(capsys: pytest.CaptureFixture[str]) -> None:
    validator = Draft202012Validator(json_schema())
    visible = [file for file in FILES if schema_could_see(file)]
    missed = [file.stem for file in visible if validator.is_valid(parse(file.read_text("utf-8"), "").tree)]
    rejected = len(visible) - len(missed)
    with capsys.disabled():
        sys.stdout.write(
            f"\nschema rejects {rejected} of {len(visible)} bad files that a schema can express; missed: {missed}\n"
        )
    assert len(visible) >= 100
    assert rejected >= 0.9 * len(visible)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_loads_without_warnings_and_satisfies_the_schema(file: Path) -> None:
    loaded = load(file, {})
    assert loaded.problems == ()
    Draft202012Validator(json_schema()).validate(parse(loaded.text, "").tree)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_opens_with_the_line_that_finds_the_schema(file: Path) -> None:
    first = file.read_text("utf-8").splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found
    assert (file.parent / found[1]).resolve() == ROOT / "schema/config.schema.json"


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_ten_megabytes_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_text("model:\n  path: x\n" + "# filler\n" * 1_200_000)
    with pytest.raises(InvalidConfigError) as caught:
        load(file, {})
    assert [problem.code for problem in caught.value.problems] == ["file-too-large"]


def test_all_errors_of_a_file_are_told_at_once() -> None:
    problems, _ = problems_of(BAD / "many-at-once.yaml")
    codes = [problem.code for problem in problems if problem.severity == "error"]
    assert codes.count("unknown-key") == 4
    assert codes.count("wrong-type") + codes.count("bad-value") >= 4
    assert "cache-needs-flash-attention" in codes, "a check between settings that are both right still runs"


def test_a_message_about_a_default_does_not_follow_from_a_wrong_value() -> None:
    """`health.port: 80000` is wrong by itself; that its default might clash is nobody's concern."""
    text = "model: {path: /m.gguf}\ngateway: {port: 8001}\nhealth: {port: 80000}\n"
    with pytest.raises(InvalidConfigError) as caught:
        loads(text, Path("config.yaml"), {})
    assert [problem.code for problem in caught.value.problems] == ["bad-value"]
