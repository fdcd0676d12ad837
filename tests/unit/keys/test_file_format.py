"""The keys file as text: both formats, and errors that name the line but never a key."""

from __future__ import annotations

import datetime as dt
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.errors import KeysError
from llama_gguf.keys.file_format import parse, render
from llama_gguf.keys.record import KeyFile, KeyRecord, PreviousSecret
from llama_gguf.settings.sections.scope import Scope
from support.keys_made import ALICE, BOB, NOW, key_files, patient, record, secrets, sha, times

HEX = "ab" * 32
NO_ZONE = "needs a time zone, for example 2030-01-31T12:00:00Z"
NO_TIME = "should be a valid datetime"
NO_SCOPE = "should be 'inference', 'metrics' or 'admin'"
NO_DOCUMENT = "not a keys file: nested too deep, or a number is too long"


def read(text: str) -> KeyFile:
    return parse(text, source="keys.json", read_at=NOW)


def problems(text: str) -> list[str]:
    with pytest.raises(KeysError) as caught:
        read(text)
    assert caught.value.code == "keys-syntax"
    for secret in (ALICE, BOB):
        assert secret not in caught.value.message + caught.value.hint
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.message.split("\n")


def document(*entries: dict[str, Any], **more: Any) -> str:
    return json.dumps({"version": 1, "keys": list(entries), **more}, indent=1)


def entry(**given: Any) -> dict[str, Any]:
    return {"id": "alice", "digest": HEX, "prefix": "sk-", "created": "2026-01-01T00:00:00Z", **given}


def test_a_file_from_before_a_field_was_there_is_rewritten_byte_for_byte() -> None:
    keys = [
        entry(scopes=["admin"], models=["a"], requests_per_minute=5, note="é"),
        {"id": "bob", "digest": "cd" * 32, "prefix": "sk-", "created": "2026-01-01T00:00:00Z", "priority": "low"},
    ]
    text = json.dumps({"version": 1, "keys": keys}, indent=2, ensure_ascii=False) + "\n"
    before = read(text)
    assert render(before) == text
    assert [(one.max_output_tokens, one.max_reasoning_tokens, one.strip, one.defaults) for one in before.records] == [
        (None, None, (), None)
    ] * 2


# --- the JSON format ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@patient
@given(key_files())
def test_what_is_written_is_read_back(keys: KeyFile) -> None:
    text = render(keys)
    assert read(text) == keys
    assert render(read(text)) == text


def test_the_written_form_is_stable_and_leaves_defaults_out() -> None:
    keys = KeyFile(
        (
            record(
                digest=HEX,
                scopes=frozenset({"metrics", "admin"}),
                models=("a",),
                expires=NOW,
                previous=(PreviousSecret("cd" * 32, NOW),),
                note="né",
            ),
        )
    )
    assert render(keys) == (
        "{\n"
        '  "version": 1,\n'
        '  "keys": [\n'
        "    {\n"
        '      "id": "alice",\n'
        f'      "digest": "{HEX}",\n'
        '      "prefix": "sk-Alice",\n'
        '      "created": "2026-11-22T12:00:00Z",\n'
        '      "scopes": [\n'
        '        "admin",\n'
        '        "metrics"\n'
        "      ],\n"
        '      "models": [\n'
        '        "a"\n'
        "      ],\n"
        '      "expires": "2026-11-22T12:00:00Z",\n'
        '      "note": "né",\n'
        '      "previous": [\n'
        "        {\n"
        f'          "digest": "{"cd" * 32}",\n'
        '          "valid_until": "2026-11-22T12:00:00Z"\n'
        "        }\n"
        "      ]\n"
        "    }\n"
        "  ]\n"
        "}\n"
    )


@pytest.mark.parametrize("blank", ["", "\n", "  \r\n\t\n", "\ufeff"])
def test_blank_text_has_no_keys(blank: str) -> None:
    assert read(blank) == KeyFile()


def test_a_byte_order_mark_is_skipped() -> None:
    assert read("\ufeff" + document(entry())).find("alice")


def test_times_of_any_zone_are_read() -> None:
    """Defect 5: a time zone in an expiry crashed the validator."""
    read_back = read(document(entry(expires="2030-01-01T00:00:00+05:30"))).records[0]
    assert read_back.expires == dt.datetime(2029, 12, 31, 18, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "keys.json:1: not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ('{"version": 1,\n"keys": [}\n', "keys.json:2: not JSON: Expecting value (column 10)"),
        ("{}", "keys.json:1: version: is missing"),
        ('{"version": 2, "keys": []}', "keys.json:1: version: must be 1; is this file from a newer llama-gguf?"),
        ('{"version": 1,\n "keys": {}}', "keys.json:2: keys: must be a list"),
        ('{"version": 1,\n "keys": [\n7]}', "keys.json:3: keys[0]: must be an object"),
        (document(entry(id="a b")), "keys.json:5: keys[0].id: has the wrong form"),
        (document(entry(digest=ALICE)), "keys.json:6: keys[0].digest: has the wrong form"),
        (document(entry(key=ALICE)), "keys.json:9: keys[0].key: no such field; a keys file holds digests, never keys"),
        (document(entry(expire=ALICE)), 'keys.json:9: keys[0]: unknown field; did you mean "expires"?'),
        (document(entry(**{ALICE: 1})), "keys.json:9: keys[0]: unknown field"),
        (document(**{ALICE: 1}), "keys.json:4: document: unknown field"),
        (document(entry(expires="2030-01-01T00:00:00")), f"keys.json:9: keys[0].expires: {NO_ZONE}"),
        (document(entry(expires=ALICE)), f"keys.json:9: keys[0].expires: {NO_TIME}, invalid character in year"),
        (document(entry(expires=1_900_000_000)), f"keys.json:9: keys[0].expires: {NO_TIME}"),
        (document(entry(requests_per_minute="60")), "keys.json:9: keys[0].requests_per_minute: must be a whole number"),
        (document(entry(scopes=["admin", ALICE])), f"keys.json:11: keys[0].scopes[1]: {NO_SCOPE}"),
        (document(entry(previous=[{"digest": HEX}])), "keys.json:10: keys[0].previous[0].valid_until: is missing"),
        ('{"version": 1, "keys": [],\n\n "keys": []}', "keys.json:3: this object has a field twice"),
        ('{"version": 1, "keys": ' + "[" * 100_000 + "]" * 100_000 + "}", f"keys.json:1: {NO_DOCUMENT}"),
        ('{"version": 1' + "0" * 5000 + ', "keys": []}', f"keys.json:1: {NO_DOCUMENT}"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_never_a_value(text: str, expected: str) -> None:
    assert problems(text)[0] == expected


def test_two_keys_must_differ_in_id_and_secret() -> None:
    other = "cd" * 32
    assert problems(document(entry(), entry(digest=other))) == ["keys.json:10: the same id as in line 4"]
    assert problems(document(entry(), entry(id="bob"))) == ["keys.json:10: the same key (or digest) as in line 4"]
    previous = [{"digest": HEX, "valid_until": "2030-01-01T00:00:00Z"}]
    assert problems(document(entry(), entry(id="bob", digest=other, previous=previous))) == [
        "keys.json:10: the same key (or digest) as in line 4"
    ]
    assert problems(document(entry(previous=previous))) == ["keys.json:4: the same key (or digest) as in line 4"]


def test_all_errors_are_told_up_to_a_bound() -> None:
    two = problems(document(entry(id=""), entry(digest="x")))
    assert two == ["keys.json:5: keys[0].id: has the wrong form", "keys.json:12: keys[1].digest: has the wrong form"]
    many = problems(document(*[entry(id="")] * 50))
    assert len(many) == 21
    assert many[-1] == "keys.json: and 30 more"
    doubles = problems(document(*[entry()] * 50))
    assert doubles[-1] == "keys.json: and 78 more"


@patient
@given(st.text(max_size=60), st.integers(0, 500))
def test_any_text_is_read_or_refused(noise: str, at: int) -> None:
    whole = render(KeyFile((record(), record("bob", BOB, expires=NOW))))
    for text in (noise, "{" + noise, whole[:at] + noise + whole[at:]):
        try:
            read(text)
        except KeysError as error:
            assert error.code == "keys-syntax"  # noqa: PT017 - it may also be good


@patient
@given(st.integers(0, 1000))
def test_a_file_that_was_cut_off_is_never_taken_for_a_smaller_one(at: int) -> None:
    whole = render(KeyFile((record(), record("bob", BOB))))
    cut = whole.rstrip()[:at]
    if cut.strip() and cut != whole.rstrip():
        problems(cut)


# --- the old format ----------------------------------------------------------------------------------------------


def test_the_old_format_of_parity() -> None:
    keys = read(
        "# Production keys\n"
        "\n"
        f"alice:{ALICE}\n"
        f"  bob:{BOB}:60  \r\n"
        f"carol:{'c' * 16}:120:2030-01-31T12:00:00+02:00\n"
        f"dave:{'d' * 16}::2030-01-31T12:00:00\n"
        f"erin:{'e' * 128}:2030-01-31T12:00:00Z\n"
        f"frank:{'f' * 16}:5:\n"
        "   # the end"
    )
    assert keys.plaintext
    noon = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)
    assert [(key.id, key.requests_per_minute, key.expires) for key in keys.records] == [
        ("alice", None, None),
        ("bob", 60, None),
        ("carol", 120, noon - dt.timedelta(hours=2)),
        ("dave", None, noon),
        ("erin", None, noon),
        ("frank", 5, None),
    ]
    scopes: frozenset[Scope] = frozenset({"inference", "metrics"})  # where metrics wanted a key, any would do
    assert keys.records[0] == KeyRecord(id="alice", digest=sha(ALICE), prefix="sk-Alice", created=NOW, scopes=scopes)


def test_the_old_format_is_never_written() -> None:
    keys = read(f"alice:{ALICE}:60\n")
    text = render(keys)
    assert ALICE not in text
    assert read(text) == KeyFile(keys.records)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ALICE, "not `id:key[:requests per minute][:expiry]`"),
        (f"a b:{ALICE}", "the id must be 1 to 64 characters of A-Z a-z 0-9 _ -"),
        (f":{ALICE}", "the id must be 1 to 64 characters of A-Z a-z 0-9 _ -"),
        ("alice:short", "a key must be 16 to 128 characters of A-Z a-z 0-9 _ - (this one has 5)"),
        (f"alice:{ALICE}!", "a key must be 16 to 128 characters of A-Z a-z 0-9 _ - (this one has 47)"),
        (f"alice:{ALICE}:0", "requests per minute must be 1 to 999999999"),
        (f"alice:{ALICE}:1234567890", "requests per minute must be 1 to 999999999"),
        (f"alice:{ALICE}:fast", "the expiry is not an ISO 8601 time such as 2030-01-31T12:00:00Z"),
        (f"alice:{ALICE}:60:{BOB}", "the expiry is not an ISO 8601 time such as 2030-01-31T12:00:00Z"),
        (
            f"alice:{ALICE}:60:2030-02-31T00:00:00+02:00",
            "the expiry is not an ISO 8601 time such as 2030-01-31T12:00:00Z",
        ),
        (f"[{ALICE}]", "not `id:key[:requests per minute][:expiry]`"),
    ],
)
def test_errors_of_old_lines(line: str, expected: str) -> None:
    assert problems(f"# one\n\n{line}\n") == [f"keys.json:3: {expected}"]


def test_old_doubles_and_several_errors() -> None:
    assert problems(f"alice:{ALICE}\n#\nalice:{BOB}\nbob:{ALICE}\nx\n") == [
        "keys.json:3: the same id as in line 1",
        "keys.json:4: the same key (or digest) as in line 1",
        "keys.json:5: not `id:key[:requests per minute][:expiry]`",
    ]


_ids = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)


@patient
@given(
    st.lists(st.tuples(_ids, secrets), unique_by=(lambda pair: pair[0], lambda pair: pair[1]), max_size=5),
    st.none() | st.integers(1, 999_999_999),
    st.none() | times,
    st.sampled_from(["\n", "\r\n", "\n\n# comment: with colons\n"]),
    st.integers(-14 * 60, 14 * 60),
)
def test_every_old_file_is_read(
    pairs: list[tuple[str, str]], rate: int | None, expires: dt.datetime | None, newline: str, minutes: int
) -> None:
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    ending = f":{rate or ''}:{expires.astimezone(zone).isoformat()}" if expires else f":{rate}" if rate else ""
    keys = read("# old\n" + "".join(f"{key_id}:{secret}{ending}{newline}" for key_id, secret in pairs))
    assert keys.plaintext
    assert [(key.id, key.digest, key.requests_per_minute, key.expires) for key in keys.records] == [
        (key_id, sha(secret), rate, expires) for key_id, secret in pairs
    ]
