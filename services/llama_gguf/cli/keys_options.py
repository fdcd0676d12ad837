"""Options of the `keys` commands: the keys file, and a key's scopes, limits and other fields."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from llama_gguf.audit import AuditLog
from llama_gguf.cli.config_options import config_options, load_or_exit
from llama_gguf.errors import KeysError
from llama_gguf.gateway.request.operator_parameters import check_default, check_parameter
from llama_gguf.keys.admin import KeyAdmin, actor
from llama_gguf.keys.durations import parse_expiry, parse_span
from llama_gguf.keys.operations import KeyFields
from llama_gguf.keys.record import ID_PATTERN, Priority
from llama_gguf.keys.store import KeyStore
from llama_gguf.settings.locations import locate
from llama_gguf.settings.sections.auth import Bootstrap
from llama_gguf.settings.sections.scope import Scope

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_LIMIT = 1_000_000_000
MAX_TOKENS = 16_777_216


@dataclass(frozen=True, slots=True)
class KeyPaths:
    """The files that a command uses. `bootstrap` is None if no configuration was read."""

    keys_file: Path
    audit_file: Path
    bootstrap: Bootstrap | None = None

    def admin(self) -> KeyAdmin:
        """Return the KeyAdmin, which changes the keys file and records that in the audit log."""
        return KeyAdmin(KeyStore(self.keys_file), AuditLog(self.audit_file), actor=actor("cli"))


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given on the command line, including None (`none`, `never`, `all`)."""

    value: object


def key_paths_options(command: Command) -> Command:
    """Add --config, --set and --keys-file to a command; it receives them as one argument `paths`."""

    @functools.wraps(command)
    def run(
        *args: object, config: Path | None, sets: tuple[str, ...], keys_file: Path | None, **kwargs: object
    ) -> object:
        return command(*args, paths=find(config, sets, keys_file), **kwargs)

    option = click.option(
        "--keys-file",
        type=click.Path(path_type=Path),
        help="Keys file; default: the configured one. Its audit log is then audit.jsonl in the same directory.",
    )
    return cast("Command", config_options(option(run)))


def find(config: Path | None, sets: tuple[str, ...], keys_file: Path | None) -> KeyPaths:
    """Return the files to use: those of the configuration, unless a keys file is given."""
    if keys_file is not None:
        return KeyPaths(keys_file.absolute(), keys_file.absolute().with_name("audit.jsonl"))
    settings = load_or_exit(config, sets).settings
    locations = locate(settings, os.environ)
    return KeyPaths(locations.keys_file, locations.audit_file, settings.auth.bootstrap)


def key_id_argument(command: Command) -> Command:
    """Accept the id of a key as an argument or, as the legacy commands did, as --name; passed as `key_id`."""

    @functools.wraps(command)
    def run(*args: object, key: Given | None, name: Given | None, **kwargs: object) -> object:
        given = key or name
        if given is None or (key and name):
            raise click.UsageError("give the key as ID or as --name ID")
        return command(*args, key_id=given.value, **kwargs)

    option = click.option("--name", "--id", "name", type=KEY_ID, help="Id of the key, instead of the argument.")
    return cast("Command", click.argument("key", type=KEY_ID, required=False, metavar="[ID]")(option(run)))


class Parsed(click.ParamType[Given]):
    """An option parsed by a function, which raises ValueError with what is wrong."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Given:
        """Parse the text, or fail with an error that names the option."""
        if isinstance(value, Given):
            return value
        try:
            return Given(self._parse(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        except KeysError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


def _read_id(text: str) -> str:
    if not re.fullmatch(ID_PATTERN, text):  # not quoted: it can be a key
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    return text


def _read_limit(text: str, *, least: int = 1, most: int = MAX_LIMIT) -> int | None:
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or not least <= int(text) <= most:
        raise ValueError(f"must be a whole number from {least} to {most}, or `none`")
    return int(text)


def _read_strip(text: str) -> tuple[str, ...]:
    if text.lower() == "none":
        return ()
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("must name at least one parameter; `none` strips nothing")
    for name in names:
        check_parameter(name)
    return names


def _read_defaults(text: str) -> dict[str, Any] | None:
    if text.lower() == "none":
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("must be an object of JSON, or `none`")  # noqa: TRY004 - Parsed shows ValueError
    for name, value in found.items():
        check_default(name, value)
    return found or None


def _read_models(text: str) -> tuple[str, ...] | None:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("must name at least one model; `all` allows every model")
    return None if names == ("all",) else names


def _read_scopes(text: str) -> frozenset[str]:
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not names or not names <= set(get_args(Scope)):
        raise ValueError(f"must be one or more of {', '.join(get_args(Scope))}, separated by commas")
    return names


def _read_priority(text: str) -> str:
    if text not in get_args(Priority):
        raise ValueError(f"must be one of {', '.join(get_args(Priority))}")
    return text


def _read_expiry(text: str) -> dt.datetime | None:
    return parse_expiry(text, dt.datetime.now(dt.UTC))


KEY_ID = Parsed("id", _read_id)
SPAN = Parsed("span", parse_span)

_LIMIT = Parsed("N|none", _read_limit)
_TOKENS = Parsed("N|none", functools.partial(_read_limit, most=MAX_TOKENS))
_FIELDS: tuple[tuple[str, str, Parsed, str], ...] = (
    ("--rate-limit", "requests_per_minute", _LIMIT, "Requests per minute; `none` = the configured default."),
    ("--tpm", "tokens_per_minute", _LIMIT, "Tokens per minute."),
    ("--concurrency", "concurrency", _LIMIT, "Concurrent requests."),
    ("--monthly-tokens", "monthly_tokens", _LIMIT, "Tokens per calendar month."),
    ("--max-output-tokens", "max_output_tokens", _TOKENS, "Maximum tokens of a completion; a lower one holds."),
    (
        "--max-reasoning-tokens",
        "max_reasoning_tokens",
        Parsed("N|none", functools.partial(_read_limit, least=0, most=MAX_TOKENS)),
        "Maximum tokens of reasoning; 0 = none.",
    ),
    ("--strip", "strip", Parsed("A,B|none", _read_strip), "Parameters that are left out of its requests."),
    (
        "--defaults",
        "defaults",
        Parsed("JSON|none", _read_defaults),
        "Parameters that its requests get unless they set them, as '{\"temperature\": 0.2}'.",
    ),
    ("--models", "models", Parsed("A,B|all", _read_models), "Models that the key can use; `all` = every model."),
    ("--scopes", "scopes", Parsed("A,B", _read_scopes), "Scopes of the key: inference, metrics, admin."),
    ("--priority", "priority", Parsed("|".join(get_args(Priority)), _read_priority), "Priority in the queue."),
    (
        "--expires",
        "expires",
        Parsed("when", _read_expiry),
        "30d, 24h, 60m, an ISO 8601 time (UTC unless it has a time zone), or `never`.",
    ),
    ("--note", "note", Parsed("text", str), "A note."),
)


def field_options(command: Command) -> Command:
    """Add the options for a key's fields; the command receives those given as one argument `given`."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> object:
        values = {name: kwargs.pop(name) for _, name, _, _ in _FIELDS}
        given = {name: value.value for name, value in values.items() if isinstance(value, Given)}
        return command(*args, given=cast("KeyFields", given), **kwargs)

    decorated: Callable[..., Any] = run
    for option, name, kind, text in reversed(_FIELDS):
        decorated = click.option(option, name, type=kind, metavar=kind.name, help=text)(decorated)
    return cast("Command", decorated)
