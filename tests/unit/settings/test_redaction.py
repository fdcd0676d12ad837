"""masking: what sounds like a secret or is shaped like one is not shown; what only sounds near is."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from llama_gguf.settings.redaction import (
    MASK,
    is_secret_name,
    mask_line,
    mask_text,
    mask_value,
    masked_environment,
    url_secrets,
)


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "BACKEND_API_KEY",
        "api_key",
        "api-key",
        "apiKey",
        "password",
        "VALKEY_PASSWORD",
        "store_password",
        "CONTAINER_API_KEY",
        "OPEN_BUTTON_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "RUNPOD_SECRET_x",
        "credentials",
        "FIRST_KEY",
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN_PATH",
        "AUTH_KEYS_FILE",
        "keys_file",
        "store_password_env",
        "token_env",
        "tokens_per_minute",
        "monthly_tokens",
        "key_label",
        "monkey",
        "cache_type_k",
        "require_key_id",
        "PATH",
    ],
)
def test_names_that_hold_no_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hunter2@valkey:6379/0",
        "https://ada:hunter2@example.com/m.gguf",
        "https://example.com/m?token=hunter2&x=1",
        "https://example.com/m?X-Amz-Signature=hunter2",
        "sk-hunter2hunter2",
        "Bearer hf_hunter2hunter2",
        '["--api-key", "hunter2"]',
        "--api-key=hunter2",
        "--hf-token hunter2",
    ],
)
def test_mask_text(text: str) -> None:
    masked = mask_text(text)
    assert "hunter2" not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text", ["/data/task-sk-1/model.gguf", "https://example.com/a?download=true", "redis://valkey:6379"]
)
def test_plain_text_stays(text: str) -> None:
    assert mask_text(text) == text


def test_mask_line_keeps_columns_of_keys_and_numbers() -> None:
    assert mask_line("  api_key: hunter2") == f"  api_key: {MASK}"
    assert mask_line('  - "password": hunter2') == f'  - "password": {MASK}'
    assert mask_line("  max_size_per_key: 20") == "  max_size_per_key: 20"
    assert mask_line("  env: hunter2", whole_value=True) == f"  env: {MASK}"


def test_mask_value_goes_deep() -> None:
    value: JsonValue = {
        "a": {"api_key": "hunter2", "n": 5, "b": None, "ok": True},
        "urls": ["redis://:hunter2@h"],
        "key": ["x"],
    }
    assert mask_value("", value) == {
        "a": {"api_key": MASK, "n": 5, "b": None, "ok": True},
        "urls": [f"redis://{MASK}@h"],
        "key": [MASK],
    }


def test_environment_is_sorted_and_masked() -> None:
    assert list(masked_environment({"B": "1", "A_TOKEN": "x"}).items()) == [("A_TOKEN", MASK), ("B", "1")]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://example.com/m.gguf?a=1", []),
        ("https://u@example.com", ["password"]),
        ("https://e.com/?Token=1&sig=2", ["token", "signature"]),
        ("https://[::1/", []),
    ],
)
def test_url_secrets(url: str, found: list[str]) -> None:
    assert list(url_secrets(url)) == found
