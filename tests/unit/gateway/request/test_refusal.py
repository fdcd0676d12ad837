"""Words of a refusal."""

from __future__ import annotations

from llama_gguf.gateway.request.refusal import kind, quoted, refusal


def test_a_refusal_names_the_place() -> None:
    error = refusal("messages[1].role", "is missing.")
    assert (error.status, error.param, error.message) == (400, "messages[1].role", "`messages[1].role` is missing.")


def test_the_clients_own_words_are_short_and_on_one_line() -> None:
    assert quoted("a\r\nb") == "'a\\r\\nb'"
    assert len(quoted("x" * 10**6)) < 80


def test_kinds() -> None:
    values: list[object] = [None, True, 1, 1.5, "", [], {}]
    kinds = ["null", "a boolean", "a number", "a number", "a string", "a list", "an object"]
    assert [kind(value) for value in values] == kinds
