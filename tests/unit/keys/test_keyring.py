"""Finding the record of a presented key."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.keys.keyring import Keyring, Verdict
from llama_gguf.keys.record import KeyRecord, PreviousSecret
from llama_gguf.keys.secret import new_secret
from support.keys_made import ALICE, BOB, NOW, patient, record, secrets, sha

AT = NOW.timestamp()


def test_a_key_is_found_as_text_and_as_bytes() -> None:
    alice, bob = record(), record("bob", BOB)
    ring = Keyring([alice, bob])
    assert ring.match(ALICE, AT) is alice
    assert ring.match(BOB.encode(), AT) is bob
    assert ring.get("bob") is bob
    assert ring.get("carol") is None
    assert len(ring) == 2


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "x",
        "x" * 46,
        ALICE[:-1],
        ALICE + "a",
        ALICE.lower(),
        " " + ALICE,
        "\udcff" * 20,
        "\ud800" * 21,
        "é" * 40,
        "\x00" * 40,
    ],
)
def test_anything_else_is_nobody(presented: str) -> None:
    assert Keyring([record()]).match(presented, AT) is None


def test_any_bytes_and_any_length_are_nobody() -> None:
    ring = Keyring([record()])
    assert ring.match(b"\xff" * 40, AT) is None
    assert ring.match(b"a" * 1_000_000, AT) is None


@pytest.mark.parametrize("presented", [ALICE, "", bytes(32), "0" * 64])
def test_an_empty_ring_lets_nobody_in(presented: str | bytes) -> None:
    assert Keyring().match(presented, AT) is None
    assert len(Keyring()) == 0


def test_the_digest_itself_is_no_key() -> None:
    assert Keyring([record()]).match(sha(ALICE), AT) is None


def test_expiry_is_exact_and_knows_its_time_zone() -> None:
    """Defect 5: a time zone in an expiry crashed the validator."""
    expires = dt.datetime(2026, 11, 22, 14, 0, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    ring = Keyring([record(expires=expires)])
    assert ring.match(ALICE, AT - 0.001) is not None
    assert ring.match(ALICE, AT) is None


def test_an_earlier_secret_works_until_its_grace_ends() -> None:
    rotated = record(previous=(PreviousSecret(sha(BOB), NOW + dt.timedelta(hours=1)),))
    ring = Keyring([rotated])
    assert ring.match(BOB, AT + 3599) is rotated
    assert ring.match(BOB, AT + 3600) is None
    assert ring.match(ALICE, AT + 3600) is rotated


def test_the_expiry_of_the_key_ends_its_earlier_secrets_too() -> None:
    later = PreviousSecret(sha(BOB), NOW + dt.timedelta(days=1))
    ring = Keyring([record(expires=NOW + dt.timedelta(hours=1), previous=(later,))])
    assert ring.match(BOB, AT + 3599) is not None
    assert ring.match(BOB, AT + 3600) is None


def test_explain_tells_the_cases_apart() -> None:
    end = NOW + dt.timedelta(hours=1)
    alice = record(expires=end, previous=(PreviousSecret(sha(BOB), NOW),))
    ring = Keyring([alice])
    assert ring.explain(ALICE, AT) == Verdict("valid", alice, previous=False, valid_until=end.timestamp())
    assert ring.explain(BOB, AT) == Verdict("expired", alice, previous=True, valid_until=AT)
    assert ring.explain("no key", AT).state == "unknown"


def test_doubles_are_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="two keys have the id alice"):
        Keyring([record(), record(secret=BOB)])
    with pytest.raises(ValueError, match="share a secret"):
        Keyring([record(), record("bob")])


def test_hit_and_miss_take_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash, one lookup, one constant-time comparison, whether the key is good or not and however many there are."""
    calls: list[str] = []

    def counted(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            return inner(*args)

        return call

    ring = Keyring(record(f"k{number}", new_secret()) for number in range(1000))
    one = Keyring([record()])
    monkeypatch.setattr(hashlib, "sha256", counted("hash", hashlib.sha256))
    monkeypatch.setattr(hmac, "compare_digest", counted("compare", hmac.compare_digest))
    for presented in (ALICE, BOB):
        one.match(presented, AT)
        assert calls == ["hash", "compare"]
        calls.clear()
    ring.match(ALICE, AT)
    assert calls == ["hash", "compare"]


@patient
@given(st.lists(secrets, unique=True, max_size=20), secrets)
def test_exactly_the_keys_that_went_in_are_found(inside: list[str], other: str) -> None:
    records = {key: record(f"k{number}", key) for number, key in enumerate(inside)}
    ring = Keyring(records.values())
    for key, expected in records.items():
        assert ring.match(key, AT) is expected
    assert ring.match(other, AT) is records.get(other)


@patient
@given(st.text() | st.binary())
def test_match_never_raises(presented: str | bytes) -> None:
    assert Keyring([record()]).match(presented, AT) is None


@patient
@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_validity_is_the_earlier_of_expiry_and_grace(expires: int, grace: int, now: int) -> None:
    def moment(seconds: int) -> dt.datetime:
        return NOW + dt.timedelta(seconds=seconds)

    made: KeyRecord = record(expires=moment(expires), previous=(PreviousSecret(sha(BOB), moment(grace)),))
    ring = Keyring([made])
    assert (ring.match(ALICE, AT + now) is made) == (now < expires)
    assert (ring.match(BOB, AT + now) is made) == (now < min(expires, grace))
