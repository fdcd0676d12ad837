"""The format of the keys file: the only code that parses and renders it.

Two formats are read. The one written is a JSON document `{"version": 1, "keys": [...]}`, which holds digests. The
old one, lines of `id:key[:requests per minute][:expiry]`, holds the keys themselves; they are hashed here and not
passed on. Every error has a line number and none quotes a value, because the value can be a key.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from operator import itemgetter

from llama_gguf.errors import KeysError
from llama_gguf.keys import json_lines
from llama_gguf.keys.durations import parse_moment
from llama_gguf.keys.record import ID_PATTERN, KeyFile, KeyRecord, PreviousSecret, RotationMark
from llama_gguf.keys.secret import check_secret, digest, visible_prefix
from llama_gguf.keys.validation import VERSION, Violation, ViolationsError, check, check_document
from llama_gguf.settings.words import closest
from llama_gguf.timestamps import utc_text

MAX_ERRORS_SHOWN = 20

_FIELD_NAMES = tuple(field.name for kind in (KeyRecord, PreviousSecret, RotationMark) for field in fields(kind))


def parse(text: str, *, source: str, read_at: dt.datetime) -> KeyFile:
    """Parse a keys file in either format. `source` names it in errors; old lines count as created at `read_at`.

    Blank text is a file without keys. Raises KeysError (code `keys-syntax`) that lists the errors by line.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        return KeyFile()
    if text.lstrip().startswith("{"):
        return _parse_json(text, source)
    return KeyFile(_parse_lines(text, source, read_at), plaintext=True)


def render(keys: KeyFile) -> str:
    """Return a keys file in JSON: the same text for the same keys, without fields at their default."""
    document: dict[str, object] = {"version": VERSION, "keys": [_plain(record) for record in keys.records]}
    if keys.audit_head:
        document["audit_head"] = keys.audit_head
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _plain(value: KeyRecord | PreviousSecret | RotationMark) -> dict[str, object]:
    """Return the fields that are not at their default, in the order of their declaration."""
    plain: dict[str, object] = {}
    for field in fields(value):
        content = getattr(value, field.name)
        if field.default is MISSING or content != field.default:
            plain[field.name] = _scalar(content)
    return plain


def _scalar(value: object) -> object:
    if isinstance(value, dt.datetime):
        return utc_text(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) if isinstance(item, PreviousSecret | RotationMark) else item for item in value]
    return value


def _parse_json(text: str, source: str) -> KeyFile:
    repeats: list[bool] = []

    def note_repeats(pairs: list[tuple[str, object]]) -> None:
        repeats.append(len(dict(pairs)) != len(pairs))

    def line(index: int) -> int:
        return json_lines.line_of(text, ("keys", index))

    try:
        json.loads(text, object_pairs_hook=note_repeats)  # `check_document` would use the last of two names
        if any(repeats):
            raise _invalid(source, [(json_lines.line_of_repeated_name(text), "this object has a field twice")])
        keys = check_document(text)
    except json.JSONDecodeError as error:
        raise _invalid(source, [(error.lineno, f"not JSON: {error.msg} (column {error.colno})")]) from None
    except ViolationsError as error:
        raise _invalid(source, _problems(text, error.violations), len(error.violations)) from None
    except (RecursionError, ValueError):
        raise _invalid(source, [(1, "not a keys file: nested too deep, or a number is too long")]) from None
    if duplicates := list(_duplicates(keys.records)):
        shown = [(line(b), f"the same {what} as in line {line(a)}") for a, b, what in duplicates[:MAX_ERRORS_SHOWN]]
        raise _invalid(source, shown, len(duplicates))
    return keys


def _problems(text: str, violations: Sequence[Violation]) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    for found in violations[
        :MAX_ERRORS_SHOWN
    ]:  # finding a line parses the text again, so only for those that are shown
        if found.rule == "unexpected_keyword_argument":
            message = _unknown_field(found.location)
        elif found.location == ("version",) and found.rule != "missing":
            message = f"version: must be {VERSION}; is this file from a newer llama-gguf?"
        else:
            message = f"{_dotted(found.location)}: {found.reason}"
        problems.append((json_lines.line_of(text, found.location), message))
    return problems


def _dotted(location: Iterable[int | str]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "document"


def _unknown_field(location: tuple[int | str, ...]) -> str:
    name = str(location[-1])
    if name in ("key", "api_key", "secret"):
        return f"{_dotted(location)}: no such field; a keys file holds digests, never keys"
    near = closest(name, _FIELD_NAMES)
    # A name that is not close to a field is not quoted: it can be a key in the wrong location.
    return f"{_dotted(location[:-1])}: unknown field" + (f'; did you mean "{near}"?' if near else "")


def _parse_lines(text: str, source: str, read_at: dt.datetime) -> tuple[KeyRecord, ...]:
    records: list[KeyRecord] = []
    lines: list[int] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            records.append(_parse_line(line.strip(), read_at))
        except KeysError as error:
            problems.append((number, error.message))
        else:
            lines.append(number)
    problems += [
        (lines[later], f"the same {what} as in line {lines[first]}") for first, later, what in _duplicates(records)
    ]
    if problems:
        raise _invalid(source, problems)
    return tuple(records)


def _parse_line(line: str, read_at: dt.datetime) -> KeyRecord:
    """Parse `id:key[:rate][:expiry]`. The expiry contains colons, so it is everything after the rate."""
    parts = [part.strip() for part in line.split(":", 2)]
    if len(parts) < 2:
        raise KeysError("not `id:key[:requests per minute][:expiry]`", code="keys-syntax")
    key_id, secret, rest = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    if not re.fullmatch(ID_PATTERN, key_id):
        raise KeysError("the id must be 1 to 64 characters of A-Z a-z 0-9 _ -", code="keys-syntax")
    check_secret(secret)
    rate, _, expiry = rest.partition(":")
    if rate and not re.fullmatch(r"[0-9]+", rate.strip()):
        rate, expiry = "", rest  # the rate is omitted
    record = KeyRecord(
        id=key_id,
        digest=digest(secret),
        prefix=visible_prefix(secret),
        created=read_at,
        scopes=frozenset({"inference", "metrics"}),  # where metrics needed a key, the old system accepted any
        requests_per_minute=_rate(rate.strip()),
        expires=_moment(expiry) if expiry.strip() else None,
    )
    return check(record)


def _moment(text: str) -> dt.datetime:
    try:
        return parse_moment(text)
    except KeysError:
        raise KeysError("the expiry is not an ISO 8601 time such as 2030-01-31T12:00:00Z", code="keys-syntax") from None


def _rate(text: str) -> int | None:
    if not text:
        return None
    if len(text) > 9 or int(text) == 0:
        raise KeysError("requests per minute must be 1 to 999999999", code="keys-syntax")
    return int(text)


def _duplicates(records: Sequence[KeyRecord]) -> Iterator[tuple[int, int, str]]:
    """Yield (index, later index, what) for each id or secret that a record shares with an earlier one, or itself."""
    ids: dict[str, int] = {}
    digests: dict[str, int] = {}
    for index, record in enumerate(records):
        if (first := ids.setdefault(record.id, index)) != index:
            yield first, index, "id"
        for secret in record.digests():
            if secret in digests:
                yield digests[secret], index, "key (or digest)"
            digests.setdefault(secret, index)


def _invalid(source: str, problems: list[tuple[int, str]], total: int = 0) -> KeysError:
    shown = [f"{source}:{line}: {message}" for line, message in sorted(problems, key=itemgetter(0))[:MAX_ERRORS_SHOWN]]
    if (hidden := max(total, len(problems)) - len(shown)) > 0:
        shown.append(f"{source}: and {hidden} more")
    return KeysError("\n".join(shown), code="keys-syntax", hint="nothing was changed; correct the file by hand")
