"""pydantic's validation errors -> our own problems, by error type and in an operator's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llama_gguf.errors import Problem
from llama_gguf.settings.messages.did_you_mean import suggestion
from llama_gguf.settings.messages.hints import hint, show
from llama_gguf.settings.redaction import is_secret_name, shown_variable
from llama_gguf.settings.schema_tree import SettingPath, SettingsSchema, dotted

Found = tuple[SettingPath, Problem]
_RANGE_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "string_pattern_mismatch")


def translate(error: ValidationError, schema: SettingsSchema) -> list[Found]:
    """Return one problem per setting, with its path.

    Alternatives of a union, which pydantic reports separately, become one sentence; errors that only follow from
    another one are omitted: a list with a bad item, a required setting whose name is misspelt next to it.
    """
    grouped: dict[SettingPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(_path(detail, schema), []).append(detail)
    found = [(path, _problem(path, details, schema)) for path, details in grouped.items()]
    misspelt = {(path[:-1], problem.hint) for path, problem in found if problem.code == "unknown-key"}
    return [(path, problem) for path, problem in found if not _follows(path, problem, grouped, misspelt)]


def wrong_paths(error: ValidationError, schema: SettingsSchema) -> set[SettingPath]:
    """Return the paths of everything that `error` reports."""
    return {_path(detail, schema) for detail in error.errors(include_url=False)}


def _path(detail: ErrorDetails, schema: SettingsSchema) -> SettingPath:
    """Return the path of an error: pydantic's, without the union tags it appends."""
    loc = tuple(detail["loc"])
    return loc if detail["type"] in ("extra_forbidden", "missing") else schema.known_prefix(loc)


def _follows(
    path: SettingPath, problem: Problem, wrong: Iterable[SettingPath], misspelt: set[tuple[SettingPath, str]]
) -> bool:
    if problem.code == "missing":
        return (path[:-1], f'did you mean "{path[-1]}"?') in misspelt
    deeper = len(path) + 1
    return any(
        len(other) >= deeper and other[: len(path)] == path and isinstance(other[len(path)], int) for other in wrong
    )


def _problem(path: SettingPath, details: Sequence[ErrorDetails], schema: SettingsSchema) -> Problem:
    first = details[0]
    given = first["input"]
    if first["loc"][-1] == "[key]":
        return Problem("bad-name", f"{_named(path)}: expected {schema.key_phrase(path[:-1])}", dotted(path))
    if first["type"] == "extra_forbidden":
        return unknown_key(path, schema)
    if first["type"] == "missing":
        return _missing(path, schema)
    if first["type"] == "value_error":
        reason = str(first.get("ctx", {}).get("error", first["msg"]))
        return _wrong("bad-value", path, reason, given, hint(path, given, schema))
    code = "bad-value" if any(_is_about_the_value(detail) for detail in details) else "wrong-type"
    return _wrong(code, path, f"expected {schema.expected(path)}", given, hint(path, given, schema))


def _is_about_the_value(detail: ErrorDetails) -> bool:
    """Return whether the value had the right type, and only the value is wrong."""
    if detail["type"] == "literal_error":
        return isinstance(detail["input"], str)
    return detail["type"] in _RANGE_ERRORS or detail["type"].startswith(("string_too_", "too_"))


def unknown_key(path: SettingPath, schema: SettingsSchema) -> Problem:
    """Return the problem of a setting that does not exist."""
    meant = suggestion(path, schema)
    if not meant:
        options = schema.keys(path[:-1])
        meant = f"settings here: {', '.join(options)}" if options else ""
    return Problem("unknown-key", f"{_named(path)}: no such setting", dotted(path), hint=meant)


def _named(path: SettingPath) -> str:
    """Return the path, with a name that contains dots or spaces in quotes."""
    name = str(path[-1])
    if name.replace("_", "").replace("-", "").isalnum():
        return dotted(path)
    return f"{dotted(path[:-1])}." * (len(path) > 1) + f'"{show(name)[1:-1]}"'


def _missing(path: SettingPath, schema: SettingsSchema) -> Problem:
    message = f'{dotted(path[:-1])}: "{path[-1]}" is required'
    node = schema.at(path)
    return Problem("missing", message, dotted(path), hint=str(node.get("description", "")) if node else "")


def _wrong(code: str, path: SettingPath, expectation: str, given: object, meant: str) -> Problem:
    text = f"{dotted(path) or 'the file'}: {expectation}"
    if not names_a_secret(path):
        text += f", got {show(given)}"
    else:
        meant = meant if given is None or meant.startswith("did you mean null") else _without_value(meant)
    return Problem(code, text, dotted(path), hint=meant)


def _without_value(meant: str) -> str:
    """Return the advice only if it is a variable's name that was written with a $, since it quotes the value."""
    named = re.fullmatch(r'did you mean "(\w+)"\?', meant)
    return meant if named and shown_variable(named[1]) == named[1] else ""


def names_a_secret(path: Sequence[str | int]) -> bool:
    """Return whether a wrong value at `path` can be a secret: also where the name of a variable or file is expected."""
    return refers_to_secret(path) or any(is_secret_name(str(part)) for part in path)


def refers_to_secret(path: Sequence[str | int]) -> bool:
    """Return whether the setting at `path` is the name of a variable or file with a secret, which may stand in it."""
    last = str(path[-1]) if path else ""
    return tuple(path[-2:]) == ("bootstrap", "file") or last == "env" or last.endswith("_env")
