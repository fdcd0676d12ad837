"""document: the dialect, places, and that nothing in a text can hurt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gguf.settings.loading.yaml_document import parse, plain_tag, scalar


def codes(text: str) -> list[str]:
    """Return the codes of what is wrong with `text`."""
    return [problem.code for problem in parse(text, "c.yaml").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("12", 12),
        ("-12", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 40, "9" * 40),
        ('"8000"', "8000"),
        ("'true'", "true"),
        ("a#b", "a#b"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}\n", "").tree["a"]
    assert found == value
    assert type(found) is type(value)


def test_places_count_from_one() -> None:
    read = parse("a:\n  bc: 12\n  d: [x, yz]\n", "")
    assert (read.keys["a", "bc"].line, read.keys["a", "bc"].column, read.keys["a", "bc"].end_column) == (2, 3, 5)
    assert (read.values["a", "bc"].column, read.values["a", "bc"].end_column) == (7, 9)
    assert (read.values["a", "d", 1].column, read.values["a", "d", 1].end_column) == (10, 12)
    assert read.values[("a",)].end_column == 0, "a value over several lines has no end on its own line"


def test_the_first_of_two_wins_and_the_second_is_told() -> None:
    read = parse("a: {b: 1, c: 2}\na: {b: 3}\n", "c.yaml")
    assert read.tree == {"a": {"b": 1, "c": 2}}
    (problem,) = read.problems
    assert (problem.code, problem.line, problem.path) == ("duplicate-key", 2, "a")
    assert "first on line 1" in problem.message


def test_what_is_not_read_is_told_once_and_kept_apart() -> None:
    read = parse("x: &n {y: 1}\na: *n\nb: [*n, *n]\nc: !t 5\nd:\ne: [1, ]\nf:\n- \n- ~\n", "c.yaml")
    assert sorted(codes_of(read.problems)) == ["empty-value", "empty-value", "yaml-alias", "yaml-anchor", "yaml-tag"]
    assert read.unread == {("a",), ("b",), ("c",), ("d",), ("f",)}
    assert read.tree == {"x": {"y": 1}, "e": [1]}


def codes_of(problems: list) -> list[str]:  # type: ignore[type-arg]
    """Return the codes of `problems`."""
    return [problem.code for problem in problems]


def test_explicit_null_is_a_value() -> None:
    read = parse("a: null\nb: ~\n", "")
    assert read.tree == {"a": None, "b": None}
    assert not read.problems


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty-file"),
        ("# nothing\n", "empty-file"),
        ("---\n", "not-settings"),
        ("- a\n", "not-settings"),
        ("just words\n", "not-settings"),
        ("a: 1\n---\nb: 2\n", "yaml-documents"),
        ("a:\n\tb: 1\n", "yaml-tab"),
        ("a: \x00\n", "yaml-character"),
        ("a: " + "[" * 100_000, "yaml-depth"),
        ("{" * 5000, "yaml-depth"),
        ("a: {b: 1\n", "yaml-syntax"),
        ("? [a]\n: 1\n", "key-not-text"),
        ("1: a\n", "key-not-text"),
        ("true: a\n", "key-not-text"),
        ("<<: {a: 1}\n", "yaml-merge"),
        ("%YAML 9.9\n---\na: 1\n", "yaml-syntax"),
    ],
)
def test_what_cannot_be_read_has_a_code(text: str, code: str) -> None:
    assert code in codes(text)


def test_quoted_keys_may_look_like_numbers() -> None:
    assert parse('"1": a\n', "").tree == {"1": "a"}


def test_a_bomb_of_aliases_stays_small() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    read = parse("\n".join(lines), "c.yaml")  # written out it would never end
    assert read.tree == {"a0": ["x"] * 10}
    assert set(codes_of(read.problems)) == {"yaml-anchor", "yaml-alias"}


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_it_raise(text: str) -> None:
    read = parse(text, "c.yaml")
    assert read.problems or read.tree == {} or isinstance(read.tree, dict)
    for problem in read.problems:
        assert problem.line >= 1
        assert problem.column >= 1


@given(st.text(alphabet="ab:-[]{}&*!#'\"\n\t ,>|%@`?~1.", max_size=60))
@settings(max_examples=500, deadline=None)
def test_no_soup_of_yaml_makes_it_raise(text: str) -> None:
    parse(text, "c.yaml")


@pytest.mark.parametrize(
    ("text", "tag"), [("12", "int"), ("x", "str"), ("", "null"), ("1.0", "float"), ("true", "bool")]
)
def test_plain_tag(text: str, tag: str) -> None:
    assert plain_tag(text) == tag


def test_scalar_of_another_tag_stays_text() -> None:
    assert scalar("timestamp", "2026-01-01") == "2026-01-01"
