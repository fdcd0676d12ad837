"""Finding the key in a request and what it may do."""

from __future__ import annotations

import datetime as dt

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api import auth
from llama_gguf.keys.keyring import Keyring
from support.gateway_box import key_record

GOOD = "sk-good-0000000000000000000000"
OLD = "sk-old-00000000000000000000000"
RING = Keyring([key_record("good", GOOD), key_record("old", OLD, expires=dt.datetime(2026, 6, 1, tzinfo=dt.UTC))])
NOW = dt.datetime(2026, 7, 1, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + GOOD.encode()},
        {b"authorization": b"bearer   " + GOOD.encode() + b" "},
        {b"authorization": GOOD.encode()},
        {b"x-api-key": GOOD.encode()},
        {b"x-api-key": GOOD.encode(), b"authorization": b"Bearer of-the-platform"},
        {b"x-key": b"Bearer " + GOOD.encode(), b"authorization": b"Bearer of-the-platform"},
        {b"x-api-key": b"placeholder", b"authorization": b"Bearer " + GOOD.encode()},
        {b"x-api-key": b"dummy-0000000000000000000000", b"authorization": b"BEARER  " + GOOD.encode()},
        {b"x-api-key": b"Bearer " + GOOD.encode()},
        {b"x-api-key": b" ", b"authorization": b"  bearer  " + GOOD.encode()},
        {b"x-key": GOOD.encode(), b"x-api-key": OLD.encode(), b"authorization": b"Bearer " + OLD.encode()},
        {b"x-key": OLD.encode(), b"x-api-key": b"a" * 9000, b"authorization": b"Bearer " + GOOD.encode()},
    ],
)
def test_places_a_key_may_be_in(headers: dict[bytes, bytes]) -> None:
    assert auth.authenticate(headers, RING, NOW, b"x-key").id == "good"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic " + GOOD.encode()},
        {b"authorization": GOOD.encode() + b", Bearer " + GOOD.encode()},
        {b"x-api-key": b"wrong", b"authorization": b"Bearer wrong", b"x-key": GOOD.encode()},
        {b"authorization": b"Bearer Bearer " + GOOD.encode()},
        {b"authorization": b"Bearer " + GOOD.encode() + b"x"},
        {b"authorization": b"Bearer " + OLD.encode()},
        {b"authorization": b"Bearer " + b"\xff" * 40},
        {b"authorization": b"Bearer " + b"a" * 9000},
        {b"x-key": GOOD.encode()},
        {b"cookie": GOOD.encode()},
    ],
)
def test_everything_else_is_401(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(GatewayError) as caught:
        auth.authenticate(headers, RING, NOW, None)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({b"authorization": b"Bearer wrong"}, "in the header Authorization."),
        ({b"x-api-key": b"wrong", b"authorization": b"Bearer "}, "in the header x-api-key."),
        ({b"x-api-key": b"wrong", b"authorization": b"Bearer wrong"}, "in the headers Authorization and x-api-key."),
        ({b"x-key": b"wrong", b"x-api-key": b"wrong"}, "in the headers x-api-key and x-key."),
    ],
)
def test_the_headers_that_were_judged_are_named(headers: dict[bytes, bytes], named: str) -> None:
    with pytest.raises(auth.WrongKeyError) as caught:
        auth.authenticate(headers, RING, NOW, b"x-key")
    assert caught.value.message == f"Invalid or expired API key {named}"
    assert "wrong" not in caught.value.message


def test_a_missing_key_is_no_wrong_one() -> None:
    with pytest.raises(GatewayError) as caught:
        auth.authenticate({b"x-api-key": b" "}, RING, NOW, None)
    assert not isinstance(caught.value, auth.WrongKeyError)


def test_of_two_valid_keys_that_in_authorization_counts() -> None:
    other = "sk-other-000000000000000000000"
    ring = Keyring([key_record("good", GOOD), key_record("other", other)])
    headers = {b"x-key": other.encode(), b"x-api-key": other.encode(), b"authorization": b"Bearer " + GOOD.encode()}
    assert auth.authenticate(headers, ring, NOW, b"x-key").id == "good"


def test_an_empty_ring_refuses_everything() -> None:
    with pytest.raises(GatewayError) as caught:
        auth.authenticate({b"authorization": b"Bearer " + GOOD.encode()}, Keyring(), NOW, None)
    assert caught.value.status == 401


def test_scopes() -> None:
    inference = key_record("i", GOOD)
    admin = key_record("a", GOOD, scopes=frozenset({"admin"}))
    auth.require_scope(inference, "inference")
    auth.require_scope(admin, "admin")
    auth.require_scope(admin, "metrics")
    for record, scope in ((inference, "admin"), (inference, "metrics"), (admin, "inference")):
        with pytest.raises(GatewayError) as caught:
            auth.require_scope(record, scope)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (403, "insufficient_scope")


def test_nobody_is_an_admin_where_no_keys_are_wanted() -> None:
    auth.require_scope(auth.ANONYMOUS, "inference")
    with pytest.raises(GatewayError):
        auth.require_scope(auth.ANONYMOUS, "admin")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("192.0.2.1", False),
        ("10.0.2.100", False),
        ("", False),
    ],
)
def test_who_is_on_this_machine(peer: str, local: bool) -> None:
    assert auth.is_local(peer, {b"host": b"localhost"}) is local
    assert not auth.is_local(peer, {b"x-forwarded-host": b"localhost"})


SERVED = ("tiny", "other")


@pytest.mark.parametrize(
    ("allowed", "asked", "name"),
    [
        (None, "tiny", "tiny"),
        (None, "other", "other"),
        (None, "gpt-4", "tiny"),
        (None, "", "tiny"),
        (("tiny",), "tiny", "tiny"),
        (("tiny",), "", "tiny"),
        (("tiny", "other"), "other", "other"),
    ],
)
def test_models_a_key_may_use(allowed: tuple[str, ...] | None, asked: str, name: str) -> None:
    assert auth.require_model(key_record("k", GOOD, models=allowed), asked, SERVED) == name


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [(("other",), "tiny"), (("other",), ""), (("tiny",), "other"), (("tiny",), "gpt-4"), (("gpt-4",), "gpt-4")],
)
def test_models_a_key_may_not_use(allowed: tuple[str, ...], asked: str) -> None:
    with pytest.raises(GatewayError) as caught:
        auth.require_model(key_record("k", GOOD, models=allowed), asked, SERVED)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
