"""What can be done to a set of keys."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.errors import KeysError
from llama_gguf.keys.keyring import Keyring
from llama_gguf.keys.operations import (
    Change,
    RotationRequest,
    import_records,
    issue,
    remove,
    replace_secret,
    rotate,
    update,
)
from llama_gguf.keys.record import KeyFile, PreviousSecret
from llama_gguf.keys.secret import new_nonce, new_secret
from llama_gguf.keys.validation import MAX_PREVIOUS, MAX_ROTATIONS
from support.keys_made import ALICE, BOB, NOW, key_files, patient, record, sha

HOUR = dt.timedelta(hours=1)
PEPPER = bytes(range(32))
KEYS = KeyFile((record(requests_per_minute=7, note="first"), record("bob", BOB)))


def turn(keys: KeyFile, now: dt.datetime = NOW, key_id: str = "alice", **given: Any) -> Change:
    return rotate(keys, key_id, now, **{"secret": new_secret(), "nonce": new_nonce(), **given})


def valid(keys: KeyFile, secret: str, at: dt.datetime) -> bool:
    return Keyring(keys.records).match(secret, at.timestamp()) is not None


def test_issue_adds_a_record_with_digest_and_prefix_only() -> None:
    change = issue(KEYS, "carol", "sk-" + "c" * 43, NOW.replace(microsecond=5), requests_per_minute=3)
    assert change.keys.records == (*KEYS.records, change.record)
    assert change.record == record("carol", "sk-" + "c" * 43, requests_per_minute=3)
    assert change.secret == "sk-" + "c" * 43
    assert change.secret not in repr(change)


@pytest.mark.parametrize(
    ("key_id", "secret", "given", "code"),
    [
        ("alice", "sk-" + "n" * 43, {}, "key-exists"),
        ("carol", ALICE, {}, "key-exists"),
        ("a b", "sk-" + "n" * 43, {}, "key-field"),
        ("carol", "short", {}, "key-text"),
        ("carol", "sk-" + "n" * 43, {"expires": NOW}, "key-field"),
        ("carol", "sk-" + "n" * 43, {"requests_per_minute": 0}, "key-field"),
    ],
)
def test_issue_refuses(key_id: str, secret: str, given: dict[str, Any], code: str) -> None:
    with pytest.raises(KeysError) as caught:
        issue(KEYS, key_id, secret, NOW, **given)
    assert caught.value.code == code


def test_a_secret_still_in_its_grace_is_taken_too() -> None:
    keys = turn(KEYS, grace=HOUR).keys
    with pytest.raises(KeysError, match="the key alice has this secret already"):
        issue(keys, "carol", ALICE, NOW)


def test_update_changes_what_is_said_and_nothing_else() -> None:
    change = update(KEYS, "alice", NOW, requests_per_minute=None, models=("a",))
    assert change.record == record(models=("a",), note="first")
    assert change.keys.records == (change.record, KEYS.records[1])
    assert update(KEYS, "alice", NOW, note="first").keys is KEYS


def test_update_refuses_a_past_expiry_but_keeps_one_that_stands() -> None:
    with pytest.raises(KeysError, match="the expiry is in the past"):
        update(KEYS, "alice", NOW, expires=NOW)
    expired = KeyFile((record(expires=NOW),))
    assert update(expired, "alice", NOW + HOUR, note="old").record.expires == NOW


def test_remove_takes_one_away() -> None:
    change = remove(KEYS, "alice")
    assert change.keys == KeyFile((KEYS.records[1],))
    assert change.record is KEYS.records[0]


@pytest.mark.parametrize(
    "act", [lambda keys: remove(keys, "x"), lambda keys: update(keys, "x", NOW), lambda keys: turn(keys, key_id="x")]
)
def test_a_key_that_is_not_there(act: Any) -> None:
    with pytest.raises(KeysError) as caught:
        act(KEYS)
    assert caught.value.code == "key-unknown"


def test_rotate_keeps_everything_but_the_secret() -> None:
    """PARITY: rotate keeps limits."""
    secret = new_secret()
    change = turn(KEYS, secret=secret)
    assert change.secret == secret
    assert change.record == record(secret=secret, requests_per_minute=7, note="first", rotated=NOW)
    assert not valid(change.keys, ALICE, NOW)
    assert valid(change.keys, secret, NOW)


def test_with_a_grace_the_old_secret_works_meanwhile() -> None:
    change = turn(KEYS, grace=24 * HOUR)
    assert valid(change.keys, ALICE, NOW + 24 * HOUR - dt.timedelta(seconds=1))
    assert not valid(change.keys, ALICE, NOW + 24 * HOUR)
    assert valid(change.keys, change.secret, NOW + 48 * HOUR)


def test_no_earlier_secret_outlives_the_last_grace() -> None:
    first = turn(KEYS, grace=24 * HOUR)
    second = turn(first.keys, NOW + HOUR, grace=HOUR)
    assert valid(second.keys, ALICE, NOW + 2 * HOUR - dt.timedelta(seconds=1))
    assert valid(second.keys, first.secret, NOW + 2 * HOUR - dt.timedelta(seconds=1))
    assert not valid(second.keys, ALICE, NOW + 2 * HOUR)
    third = turn(second.keys, NOW + HOUR)
    assert third.record.previous == ()
    assert not any(valid(third.keys, old, NOW + HOUR) for old in (ALICE, first.secret, second.secret))


def test_secrets_past_their_grace_are_forgotten_and_their_number_is_bounded() -> None:
    keys = KeyFile((record(previous=(PreviousSecret(sha("old-old-old-old-1"), NOW),)),))
    assert len(turn(keys, NOW, grace=HOUR).record.previous) == 1
    for _ in range(MAX_PREVIOUS + 3):
        keys = turn(keys, grace=HOUR).keys
    assert len(keys.records[0].previous) == MAX_PREVIOUS


def test_rotate_refuses_an_expired_key_and_a_negative_grace() -> None:
    with pytest.raises(KeysError, match="has expired"):
        turn(KeyFile((record(expires=NOW),)), NOW)
    with pytest.raises(KeysError, match="must not be negative"):
        turn(KEYS, grace=-HOUR)


def test_repeating_a_request_gives_the_same_result() -> None:
    request = RotationRequest("request-1", PEPPER)
    first = turn(KEYS, request=request, grace=HOUR)
    again = turn(first.keys, NOW + 5 * HOUR, request=request, grace=9 * HOUR)
    assert again.secret == first.secret
    assert again.record == first.record
    assert again.keys is first.keys  # nothing to write


def test_a_request_that_another_rotation_followed_is_refused() -> None:
    request = RotationRequest("request-1", PEPPER)
    first = turn(KEYS, request=request).keys
    for keys in (turn(first).keys, turn(first, request=RotationRequest("request-2", PEPPER)).keys):
        with pytest.raises(KeysError) as caught:
            turn(keys, request=request)
        assert caught.value.code == "request-id"


def test_the_same_request_id_never_brings_an_old_secret_back() -> None:
    request = RotationRequest("request-1", PEPPER)
    secrets = {turn(KEYS, request=request).secret for _ in range(5)}  # as if removed and made anew in between
    assert len(secrets) == 5
    assert turn(KEYS, request=request).secret != turn(KEYS, key_id="bob", request=request).secret


def test_remembered_requests_are_bounded() -> None:
    keys = KEYS
    for number in range(MAX_ROTATIONS + 3):
        keys = turn(keys, request=RotationRequest(f"request-{number}", PEPPER)).keys
    assert len(keys.records[0].rotations) == MAX_ROTATIONS


def test_the_request_id_is_not_in_the_record() -> None:
    change = turn(KEYS, request=RotationRequest("request-1", PEPPER))
    assert "request-1" not in repr(change.record)
    assert change.secret not in repr(change.record)


def test_replace_secret_starts_the_key_afresh() -> None:
    keys = turn(KEYS, grace=HOUR, request=RotationRequest("r", PEPPER)).keys
    secret = new_secret()
    change = replace_secret(keys, "alice", secret, NOW + HOUR)
    assert change.record == record(secret=secret, created=NOW + HOUR, requests_per_minute=7, note="first")


def test_import_adds_what_is_new_and_skips_what_is_known() -> None:
    carol = record("carol", "sk-" + "c" * 43)
    result = import_records(KEYS, [KEYS.records[0], carol])
    assert result.keys.records == (*KEYS.records, carol)
    assert (result.added, result.skipped) == (("carol",), ("alice",))
    assert import_records(result.keys, [carol]).keys is result.keys


def test_import_skips_a_key_that_was_rotated_within_its_grace() -> None:
    rotated = turn(KEYS, grace=HOUR).keys
    assert import_records(rotated, KEYS.records).skipped == ("alice", "bob")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (record("alice", new_secret()), "another key with the id alice exists already"),
        (record("carol", ALICE), "the key carol has the same secret as the key alice"),
    ],
)
def test_import_refuses_conflicts(other: Any, message: str) -> None:
    with pytest.raises(KeysError, match=message):
        import_records(KEYS, [other])


@pytest.mark.slow
@patient
@given(key_files(), st.data())
def test_any_sequence_of_operations_keeps_ids_and_secrets_distinct(keys: KeyFile, data: st.DataObject) -> None:
    for step in range(data.draw(st.integers(0, 6))):
        ids = [key.id for key in keys.records]
        act = data.draw(st.sampled_from(("issue", "rotate", "remove", "update") if ids else ("issue",)))
        before = keys
        try:
            if act == "issue":
                keys = issue(keys, f"new-{step}", new_secret(), NOW).keys
            else:
                key_id = data.draw(st.sampled_from(ids))
                if act == "rotate":
                    keys = turn(keys, key_id=key_id, grace=data.draw(st.sampled_from((0 * HOUR, HOUR)))).keys
                elif act == "remove":
                    keys = remove(keys, key_id).keys
                else:
                    keys = update(keys, key_id, NOW, note=data.draw(st.sampled_from(("", "n")))).keys
        except KeysError as error:
            assert error.code in ("key-exists", "key-expired")  # noqa: PT017 - most draws raise nothing
            assert keys is before
    Keyring(keys.records)  # raises if two records share an id or a secret
