"""The text of keys."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.errors import KeysError
from llama_gguf.keys.secret import (
    check_secret,
    derive_secret,
    digest,
    is_short,
    new_nonce,
    new_secret,
    request_mark,
    visible_prefix,
)
from support.keys_made import patient, sha

PEPPER = bytes(range(32))


def test_a_new_key_has_the_form_of_parity() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key) for key in made)
    assert all(check_secret(key) == key for key in made)


@pytest.mark.parametrize("good", ["a" * 16, "Z9_-" * 32, "sk-0123456789abc"])
def test_keys_that_are_accepted(good: str) -> None:
    assert check_secret(good) == good
    assert digest(good) == sha(good)


@pytest.mark.parametrize(
    "bad", ["", "a" * 15, "a" * 129, "a" * 16 + "\n", "key with spaces in", "ключключключключ", "a" * 16 + "+"]
)
def test_keys_that_are_refused_are_not_quoted(bad: str) -> None:
    with pytest.raises(KeysError) as caught:
        check_secret(bad)
    assert caught.value.code == "key-text"
    assert not bad or bad not in caught.value.message


@pytest.mark.parametrize(
    ("key", "prefix", "short"),
    [("sk-" + "x" * 43, "sk-xxxxx", False), ("a" * 16, "aaaa", True), ("b" * 32, "b" * 8, False)],
)
def test_at_most_a_quarter_of_a_key_is_visible(key: str, prefix: str, short: bool) -> None:
    assert visible_prefix(key) == prefix
    assert is_short(prefix) is short


def test_a_derived_key_repeats_and_has_the_form_of_a_new_one() -> None:
    nonce = new_nonce()
    key = derive_secret(PEPPER, "alice", "r1", nonce)
    assert key == derive_secret(PEPPER, "alice", "r1", nonce)
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key)


def test_a_derived_key_depends_on_every_part() -> None:
    nonce = new_nonce()
    variants = [
        (PEPPER, "alice", "r1", nonce),
        (bytes(32), "alice", "r1", nonce),
        (PEPPER, "alicer", "1", nonce),  # the same characters, cut elsewhere
        (PEPPER, "alice", "r2", nonce),
        (PEPPER, "alice", "r1", new_nonce()),
    ]
    assert len({derive_secret(*variant) for variant in variants}) == len(variants)
    assert request_mark(PEPPER, "alice", "r1") != request_mark(PEPPER, "bob", "r1")


@pytest.mark.parametrize("bad", ["", "two words", "line\n", "x" * 129, "ü"])
def test_request_ids_that_are_refused(bad: str) -> None:
    with pytest.raises(KeysError, match="a request id must be"):
        request_mark(PEPPER, "alice", bad)


@patient
@given(st.text())
def test_check_never_raises_anything_else(text: str) -> None:
    with contextlib.suppress(KeysError):
        assert digest(check_secret(text)) == sha(text)
