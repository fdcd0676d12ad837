"""Options of the `keys` commands: which keys file, and what a key may do."""

from __future__ import annotations

import datetime as dt
import functools
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


@dataclass(frozen=True, slots=True)
class Where:
    """The files a command works on. `bootstrap` is None where no configuration was read."""

    keys_file: Path
    audit_file: Path
    bootstrap: Bootstrap | None = None

    def store(self) -> KeyStore:
        """Return the keys file."""
        return KeyStore(self.keys_file)

    def admin(self) -> KeyAdmin:
        """Return what changes the keys file and records it."""
        return KeyAdmin(self.store(), AuditLog(self.audit_file), actor=actor("cli"))


@dataclass(frozen=True, slots=True)
class Given:
    """A value that stood on the command line, None (`none`, `never`, `all`) included."""

    value: object


def where_options(command: Command) -> Command:
    """Add --config, --set and --keys-file to a command; it gets them as one argument `where`."""

    @functools.wraps(command)
    def run(
        *args: object, config: Path | None, sets: tuple[str, ...], keys_file: Path | None, **kwargs: object
    ) -> object:
        return command(*args, where=find(config, sets, keys_file), **kwargs)

    option = click.option(
        "--keys-file",
        type=click.Path(path_type=Path),
        help="Keys file; default: what the configuration says. Its audit log is then audit.jsonl beside it.",
    )
    return cast("Command", config_options(option(run)))


def find(config: Path | None, sets: tuple[str, ...], keys_file: Path | None) -> Where:
    """Return the files to work on: those of the configuration, unless the keys file is named."""
    if keys_file is not None:
        return Where(keys_file.absolute(), keys_file.absolute().with_name("audit.jsonl"))
    settings = load_or_exit(config, sets).settings
    locations = locate(settings, os.environ)
    return Where(locations.keys_file, locations.audit_file, settings.auth.bootstrap)


def key_id_argument(command: Command) -> Command:
    """Take the id of a key as an argument or, as the old commands did, as --name; passed as `key_id`."""

    @functools.wraps(command)
    def run(*args: object, key: Given | None, name: Given | None, **kwargs: object) -> object:
        said = key or name
        if said is None or (key and name):
            raise click.UsageError("say which key: ID, or --name ID")
        return command(*args, key_id=said.value, **kwargs)

    option = click.option("--name", "--id", "name", type=KEY_ID, help="Id of the key, instead of the argument.")
    return cast("Command", click.argument("key", type=KEY_ID, required=False, metavar="[ID]")(option(run)))


class Parsed(click.ParamType[Given]):
    """An option whose text a function reads; it raises ValueError with what is wrong."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Given:
        """Read the text, or complain about the option."""
        if isinstance(value, Given):
            return value
        try:
            return Given(self._read(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        except KeysError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


def _read_id(text: str) -> str:
    if not re.fullmatch(ID_PATTERN, text):  # not quoted: it may be a key
        raise ValueError("an id is 1 to 64 characters of A-Z a-z 0-9 _ -")
    return text


def _read_limit(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}, or `none`")
    return int(text)


def _read_models(text: str) -> tuple[str, ...] | None:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("names no model; `all` allows every one")
    return None if names == ("all",) else names


def _read_scopes(text: str) -> frozenset[str]:
    names = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not names or not names <= set(get_args(Scope)):
        raise ValueError(f"must be one or more of {', '.join(get_args(Scope))}, with commas between")
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
_FIELDS: tuple[tuple[str, str, Parsed, str], ...] = (
    ("--rate-limit", "requests_per_minute", _LIMIT, "Requests a minute; `none` = the default of the configuration."),
    ("--tpm", "tokens_per_minute", _LIMIT, "Tokens a minute."),
    ("--concurrency", "concurrency", _LIMIT, "Requests at the same time."),
    ("--monthly-tokens", "monthly_tokens", _LIMIT, "Tokens a calendar month."),
    ("--models", "models", Parsed("A,B|all", _read_models), "Models the key may ask for; `all` = every model."),
    ("--scopes", "scopes", Parsed("A,B", _read_scopes), "What the key may do: inference, metrics, admin."),
    ("--priority", "priority", Parsed("|".join(get_args(Priority)), _read_priority), "Who goes first in the queue."),
    (
        "--expires",
        "expires",
        Parsed("when", _read_expiry),
        "30d, 24h, 60m, an ISO 8601 time (UTC unless it has a zone), or `never`.",
    ),
    ("--note", "note", Parsed("text", str), "A note for people."),
)


def field_options(command: Command) -> Command:
    """Add the options that say what a key may do; the command gets those given as one argument `given`."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> object:
        values = {name: kwargs.pop(name) for _, name, _, _ in _FIELDS}
        given = {name: value.value for name, value in values.items() if isinstance(value, Given)}
        return command(*args, given=cast("KeyFields", given), **kwargs)

    decorated: Callable[..., Any] = run
    for option, name, kind, text in reversed(_FIELDS):
        decorated = click.option(option, name, type=kind, metavar=kind.name, help=text)(decorated)
    return cast("Command", decorated)
