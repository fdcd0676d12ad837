"""What an env file leaves around a value."""

from __future__ import annotations

import pytest

from llama_gguf.settings.environment_value import clean, secret


@pytest.mark.parametrize(
    ("raw", "text", "removed"),
    [
        ("hf_x", "hf_x", ""),
        ("", "", ""),
        ("  ", "", ""),
        ('"hf_x"', "hf_x", "quotes"),
        ("'hf_x'", "hf_x", "quotes"),
        ('"hf_x"\r', "hf_x", "quotes"),
        ('" hf_x "', "hf_x", "quotes"),
        ('""', "", "quotes"),
        ("hf_x\r\n", "hf_x", "blanks or line ends"),
        ("\thf_x", "hf_x", "blanks or line ends"),
        ('"', '"', ""),
        ("\"hf_x'", "\"hf_x'", ""),
        ('hf"x', 'hf"x', ""),
        ('"a" "b"', '"a" "b"', ""),
        ('["a"]', '["a"]', ""),
        ("'[\"a\"]'", '["a"]', "quotes"),
    ],
)
def test_what_is_removed(raw: str, text: str, removed: str) -> None:
    value = clean(raw)
    assert (value.text, value.removed) == (text, removed)
    assert "hf_x" not in repr(value)


def test_a_secret() -> None:
    env = {"A": '"hf_x"', "B": " ", "C": '""'}
    assert [secret(env, name) for name in "ABCD"] == ["hf_x", None, None, None]
