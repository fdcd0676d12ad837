"""`llama-gguf keys`, run as a person runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from llama_gguf.audit import entries, verify
from llama_gguf.cli import keys_options
from llama_gguf.cli.commands import keys
from llama_gguf.errors import KeysError
from llama_gguf.keys.store import load
from support.keys_made import ALICE, BOB, sha

KEY = r"sk-[A-Za-z0-9_-]{43}"


class Cli:
    """Runs commands on one keys file."""

    def __init__(self, root: Path) -> None:
        self.file = root / "keys.json"
        self.log = root / "audit.jsonl"

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(
            keys.keys, [*arguments, "--keys-file", str(self.file)], input=stdin, standalone_mode=False
        )

    def out(self, *arguments: str, stdin: str | None = None) -> str:
        result = self.run(*arguments, stdin=stdin)
        if result.exception:
            raise result.exception
        return result.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.out(*arguments, "--json", stdin=stdin))

    def fails(self, *arguments: str) -> BaseException:
        error = self.run(*arguments).exception
        assert error is not None
        return error


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_generate_shows_the_key_once_and_stores_its_digest(cli: Cli) -> None:
    shown = cli.out("generate", "alice")
    (key,) = re.findall(rf"^  ({KEY})$", shown, re.MULTILINE)
    record = load(cli.file).keys.find("alice")
    assert record is not None
    assert record.digest == sha(key)
    assert key not in cli.file.read_text()
    assert cli.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [("alice",), ("--name", "alice"), ("--id", "alice")])
def test_quiet_prints_the_key_alone(cli: Cli, words: tuple[str, ...]) -> None:
    """PARITY: --quiet prints the key alone; --name names it."""
    assert re.fullmatch(KEY + "\n", cli.out("generate", *words, "--quiet"))
    assert re.fullmatch(KEY + "\n", cli.out("rotate", *words, "-q"))
    assert [entry.target for entry in entries(cli.log)] == ["alice", "alice"]


def test_generate_with_every_option(cli: Cli) -> None:
    options = (
        *("--rate-limit", "60", "--tpm", "1000", "--concurrency", "2", "--monthly-tokens", "1000000"),
        *("--models", "a, b,a", "--scopes", "inference,metrics", "--priority", "high"),
        *("--expires", "2099-01-31T12:00:00+02:00", "--note", "for é [bold]"),
        *("--max-output-tokens", "500", "--max-reasoning-tokens", "0", "--strip", "seed, logprobs,seed"),
        *("--defaults", '{"temperature": 0.5, "chat_template_kwargs": {"enable_thinking": false}}'),
    )
    made = cli.json("generate", "alice", *options)
    assert re.fullmatch(KEY, made.pop("key"))
    created, prefix = made.pop("created"), made.pop("prefix")
    assert made == {
        "id": "alice",
        "state": "active",
        "scopes": ["inference", "metrics"],
        "models": ["a", "b"],
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "concurrency": 2,
        "monthly_tokens": 1_000_000,
        "max_output_tokens": 500,
        "max_reasoning_tokens": 0,
        "strip": ["seed", "logprobs"],
        "defaults": {"temperature": 0.5, "chat_template_kwargs": {"enable_thinking": False}},
        "priority": "high",
        "rotated": None,
        "expires": "2099-01-31T10:00:00Z",
        "previous_valid_until": None,
        "note": "for é [bold]",
    }
    assert cli.json("show", "alice") == {**made, "created": created, "prefix": prefix}


def test_what_requests_of_a_key_get_is_shown_recorded_and_removed(cli: Cli) -> None:
    cli.out("generate", "alice", "--max-output-tokens", "500", "--defaults", '{"min_p": 0.1}', "--strip", "seed")
    assert "500 output tokens" in cli.out("list")
    shown = cli.out("show", "alice")
    assert 'defaults     {"min_p": 0.1}\n' in shown
    assert "stripped     seed" in shown
    cli.out("update", "alice", "--max-output-tokens", "none", "--defaults", "none", "--strip", "none")
    (record,) = load(cli.file).keys.records
    assert (record.max_output_tokens, record.defaults, record.strip) == (None, None, ())
    details = [entry.details for entry in entries(cli.log)]
    assert (details[0]["max_output_tokens"], details[0]["defaults"], details[0]["strip"]) == (
        500,
        ["min_p: 0.1"],
        ["seed"],
    )
    assert details[1] == {"max_output_tokens": None, "defaults": None, "strip": None}
    assert "defaults" not in cli.file.read_text()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--max-output-tokens", "0", "from 1 to 16777216"),
        ("--max-output-tokens", "16777217", "from 1 to 16777216"),
        ("--max-output-tokens", "-1", "from 1 to 16777216"),
        ("--max-output-tokens", "\uff11\uff10", "from 1 to 16777216"),
        ("--max-reasoning-tokens", "1.5", "from 0 to 16777216"),
        ("--strip", "temprature", "did you mean temperature?"),
        ("--strip", "messages", "what a request is for"),
        ("--strip", ",", "at least one"),
        ("--defaults", "{", "an object of JSON"),
        ("--defaults", "[1]", "an object of JSON"),
        ("--defaults", "[" * 100_000, "an object of JSON"),
        ("--defaults", '{"temperature": "hot"}', "`temperature` must be a number, not a string"),
        ("--defaults", '{"max_tokens": 1e99}', "`max_tokens` must be a whole number"),
        ("--defaults", '{"model": "other"}', "what a request is for"),
        ("--defaults", '{"id_slot": 1}', "no parameter that clients can set"),
        ("--defaults", '{"temperature": null}', "null sets nothing"),
    ],
)
def test_rules_that_no_request_could_have_are_refused(cli: Cli, option: str, value: str, says: str) -> None:
    error = cli.fails("generate", "alice", option, value)
    assert isinstance(error, click.BadParameter)
    assert says in error.message
    assert not cli.file.exists()


def test_numbers_that_json_does_not_have(cli: Cli) -> None:
    for text in ('{"temperature": NaN}', '{"temperature": Infinity}'):
        assert isinstance(cli.fails("generate", "alice", "--defaults", text), (click.BadParameter, KeysError))
        assert not cli.file.exists()


def test_rotate_keeps_the_limits_and_the_old_key_for_its_grace(cli: Cli) -> None:
    old = cli.out("generate", "alice", "-q", "--rate-limit", "5", "--expires", "30d").strip()
    shown = cli.out("rotate", "alice", "--grace", "24h")
    assert "the earlier one is valid until" in shown
    assert cli.json("show", "alice")["requests_per_minute"] == 5
    assert cli.json("show", "alice")["state"] == "rotating"
    assert "earlier key  valid until" in cli.out("show", "alice")
    verdict = cli.json("verify", stdin=old + "\n")
    assert (verdict["valid"], verdict["id"], verdict["previous"]) == (True, "alice", True)
    assert "no longer valid" in cli.out("rotate", "alice")
    assert cli.run("verify", stdin=old + "\n").return_value == 1


def test_a_repeated_rotation_prints_the_same(cli: Cli) -> None:
    cli.out("generate", "alice")
    first = cli.json("rotate", "alice", "--grace", "24h", "--request-id", "7b0e")
    assert cli.json("rotate", "alice", "--grace", "24h", "--request-id", "7b0e") == first


def test_list_never_shows_a_key(cli: Cli) -> None:
    """PARITY: list (never shows keys)."""
    assert "No keys in" in cli.out("list")
    secrets = [cli.out("generate", name, "-q", "--rate-limit", "9").strip() for name in ("alice", "bob")]
    secrets.append(cli.out("rotate", "bob", "-q", "--grace", "1h").strip())
    for shown in (cli.out("list"), cli.out("list", "--json"), cli.out("show", "bob"), cli.out("list", "-q")):
        for secret in secrets:
            assert secret not in shown
            assert sha(secret) not in shown
    table = cli.out("list").splitlines()
    assert [line.split()[0] for line in table] == ["ID", "alice", "bob"]
    assert "9 rpm" in table[1]
    assert "rotating" in table[2]
    assert [key["id"] for key in cli.json("list")["keys"]] == ["alice", "bob"]
    assert cli.out("list", "--quiet") == "alice\nbob\n"


def test_a_note_is_shown_as_it_is(cli: Cli) -> None:
    cli.out("generate", "alice", "--note", "[red]x[/red] :smile:")
    assert "[red]x[/red] :smile:" in cli.out("list")
    assert "[red]x[/red] :smile:" in cli.out("show", "alice")


def test_an_expired_key_says_so(cli: Cli) -> None:
    cli.file.write_text(f"alice:{ALICE}::2020-01-01\n")
    cli.file.chmod(0o600)
    assert cli.json("show", "alice")["state"] == "expired"
    assert "expired" in cli.out("list")
    verdict = cli.run("verify", stdin=ALICE)
    assert verdict.stdout == "expired since 2020-01-01T00:00:00Z: the current secret of alice\n"
    assert verdict.return_value == 1


def test_update_sets_and_takes_away(cli: Cli) -> None:
    cli.out("generate", "alice", "--rate-limit", "5", "--models", "a", "--expires", "30d")
    shown = cli.json("update", "alice", "--rate-limit", "none", "--models", "all", "--expires", "never", "--tpm", "10")
    assert (shown["requests_per_minute"], shown["models"], shown["expires"]) == (None, None, None)
    assert shown["tokens_per_minute"] == 10
    assert "10 tpm" in cli.out("update", "alice", "--note", "x")
    assert isinstance(cli.fails("update", "alice"), click.UsageError)


def test_remove(cli: Cli) -> None:
    cli.out("generate", "alice")
    cli.out("generate", "bob")
    assert "Removed alice" in cli.out("remove", "alice")
    assert cli.json("remove", "--name", "bob") == {"id": "bob", "removed": True}
    assert load(cli.file).keys.records == ()
    assert verify(cli.log).entries == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate",), "give the key as ID"),
        (("generate", "a", "--name", "b"), "give the key as ID"),
        (("generate", "a b"), "must be 1 to 64 characters"),
        (("generate", "a", "--rate-limit", "0"), "must be a whole number from 1"),
        (("generate", "a", "--tpm", "many"), "must be a whole number from 1"),
        (("generate", "a", "--models", " , "), "must name at least one model"),
        (("generate", "a", "--scopes", "root"), "must be one or more of inference, metrics, admin"),
        (("generate", "a", "--priority", "urgent"), "must be one of high, normal, low"),
        (("generate", "a", "--expires", "soon"), "write it like 30d, 24h, 60m, never"),
        (("rotate", "a", "--grace", "long"), "not a duration"),
    ],
)
def test_usage_errors(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    error = cli.fails(*arguments)
    assert isinstance(error, click.UsageError)
    assert message in error.format_message()
    assert not cli.file.exists()


def test_an_id_that_may_be_a_key_is_not_quoted(cli: Cli) -> None:
    error = cli.fails("generate", ALICE + "!")
    assert isinstance(error, click.UsageError)
    assert ALICE not in error.format_message()


@pytest.mark.parametrize("command", ["show", "update", "remove", "rotate"])
def test_a_key_that_is_not_there(cli: Cli, command: str) -> None:
    error = cli.fails(command, "alice", *(("--note", "x") if command == "update" else ()))
    assert isinstance(error, KeysError)
    assert error.code == "key-unknown"


def test_verify_reads_the_key_from_stdin(cli: Cli) -> None:
    key = cli.out("generate", "alice", "-q", "--expires", "1h")
    assert re.fullmatch(r"valid until \S+Z: the current secret of alice\n", cli.out("verify", stdin=key))
    unknown = cli.run("verify", stdin=BOB + "\n")
    assert (unknown.return_value, unknown.stdout) == (1, "unknown: the key is not in the keys file\n")
    empty = cli.run("verify", "--json", stdin="")
    assert json.loads(empty.stdout) == {
        "valid": False,
        "state": "unknown",
        "id": None,
        "previous": False,
        "valid_until": None,
    }
    cli.out("update", "alice", "--expires", "never")
    assert cli.out("verify", stdin=key) == "valid without expiry: the current secret of alice\n"


def test_verify_takes_no_key_on_the_command_line(cli: Cli) -> None:
    assert isinstance(cli.fails("verify", ALICE), click.UsageError)


def test_import_of_an_old_file_warns_of_plaintext(cli: Cli, tmp_path: Path) -> None:
    old = tmp_path / "api_keys.txt"
    old.write_text(f"# ours\nalice:{ALICE}:60\nbob:short-key-16-chr:5:2099-01-01T00:00:00+02:00\n")
    result = cli.run("import", str(old))
    assert result.stdout == f"Imported 2 keys into {cli.file}.\n"
    assert f"warning: {old} contains plaintext keys; remove it once the import is verified" in result.stderr
    assert "rotate bob first" in result.stderr
    assert ALICE not in result.output
    again = cli.json("import", str(old))
    assert again == {"imported": [], "skipped": ["alice", "bob"], "plaintext": True}
    assert cli.json("verify", stdin=ALICE)["id"] == "alice"


def test_an_old_keys_file_is_read_with_a_warning_and_converted_by_import(cli: Cli) -> None:
    cli.file.write_text(f"alice:{ALICE}\n")
    cli.file.chmod(0o600)
    listed = cli.run("list")
    assert "alice" in listed.stdout
    assert "keys import" in listed.stderr
    error = cli.fails("generate", "bob")
    assert isinstance(error, KeysError)
    assert error.code == "keys-plaintext"
    result = cli.run("import")
    assert result.stdout == f"Imported 1 key into {cli.file}.\n"
    assert "copies and backups of it still do" in result.stderr
    assert ALICE not in cli.file.read_text()
    assert "1 already present" not in cli.out("generate", "bob")
    assert "1 already present" in cli.out("import", str(cli.file)) or "2 already present" in cli.out("import")


def test_a_broken_keys_file_is_an_error_for_every_command(cli: Cli) -> None:
    cli.file.write_text("{")
    cli.file.chmod(0o600)
    for command in (("list",), ("show", "a"), ("generate", "a"), ("verify",), ("import",)):
        error = cli.fails(*command)
        assert isinstance(error, KeysError)
        assert error.code == "keys-syntax"


def test_without_keys_file_the_configuration_says_where(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model: {path: /models/none.gguf}\n"
        f"paths: {{data_dir: {tmp_path}/data}}\n"
        "auth: {bootstrap: {env: FIRST_KEY}}\n"
    )
    where = keys_options.find(config, (), None)
    assert where.keys_file == tmp_path / "data" / "keys.json"
    assert where.audit_file == tmp_path / "data" / "audit.jsonl"
    runner = CliRunner()
    made = runner.invoke(keys.keys, ["generate", "bootstrap", "--config", str(config)], standalone_mode=False)
    assert made.exception is None
    assert where.keys_file.exists()
    removed = runner.invoke(keys.keys, ["remove", "bootstrap", "--config", str(config)], standalone_mode=False)
    assert "auth.bootstrap still refers to FIRST_KEY" in removed.stderr
