"""masking: what sounds like a secret or is shaped like one is not shown; what only sounds near is."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from llama_gguf.settings.redaction import (
    MASK,
    is_secret_name,
    looks_like_secret,
    mask_known,
    mask_line,
    mask_text,
    mask_value,
    shown_secret_file,
    shown_variable,
    url_secrets,
    url_without_secrets,
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
        "MYTOKEN",
        "DBPASS",
        "DBPWD",
        "SLACK_WEBHOOK",
        "ConnectionString",
        "SENTRY_DSN",
        "VENDOR_LICENSE_KEY",
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
        "PWD",
        "OLDPWD",
        "auth",
        "compute",
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
        "redis://:hun/hunter2@valkey",
        "redis://a:hun@hunter2@valkey",
        "socks5://hunter2@proxy:1",
        "Server=h;Database=d;Pwd=hunter2",
        "MYTOKEN=hunter2",
        "'db_password': 'hunter2'",
        "Authorization: Bearer hunter2",
        "Authorization: Basic hunter2=",
        "https://hooks.slack.com/services/T0/B0/hunter2",
        "https://discord.com/api/webhooks/1/hunter2",
        "AKIAhunter2hunter2",
        "eyJhbGciOi.hunter2hunter2.hunter2",
        "a%20sk-hunter2hunter2",
        "env: db_password=hunter2",
    ],
)
def test_mask_text(text: str) -> None:
    masked = mask_text(text)
    assert "hunter2" not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        "/data/task-sk-1/model.gguf",
        "https://example.com/a?download=true",
        "redis://valkey:6379",
        "tokens=12 key=team-a path=/v1/chat/completions",
        "token_env: HF_TOKEN",
        "max_tokens: 5, token: 7",
        "file:///a@b",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert mask_text(text) == text


def test_mask_line_keeps_columns_of_keys_and_numbers() -> None:
    assert mask_line("  api_key: hunter2") == f"  api_key: {MASK}"
    assert mask_line('  - "password": hunter2') == f'  - "password": {MASK}'
    assert mask_line("  max_size_per_key: 20") == "  max_size_per_key: 20"
    assert mask_line("  env: hunter2", whole_value=True) == f"  env: {MASK}"
    assert mask_line("  hunter2", whole_value=True) == MASK  # a text over several lines
    assert mask_line('  env: "FIRST_KEY"', whole_value=True) == '  env: "FIRST_KEY"'
    assert mask_line("  file: /run/secrets/first", whole_value=True) == "  file: /run/secrets/first"
    assert mask_line("model: {url: 'https://x/m', token_env: hunter-2}", whole_value=True) == f"model: {MASK}"
    assert mask_line("  env: hunter2/a", whole_value=True) == f"  env: {MASK}"
    assert mask_line("auth: {api_key: hunter2, enabled: true}") == f"auth: {{api_key: {MASK}, enabled: true}}"


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


SHAPED = [
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "sk-proj-0123456789abcdef",
    "ghp_0123456789abcdefghij",
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg==",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0",
]


@pytest.mark.parametrize("text", SHAPED)
def test_what_is_shaped_like_a_key(text: str) -> None:
    assert looks_like_secret(text)
    assert shown_variable(text) == MASK
    assert shown_secret_file(text) == MASK
    assert mask_value("token_env", text) == MASK


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "MY_COMPANYS_LONG_VARIABLE_2_NAME", "RUNPOD_SECRET_hf_token_of_mine", "_X1", "S3KEY"]
)
def test_names_of_variables_are_shown(name: str) -> None:
    assert not looks_like_secret(name)
    assert shown_variable(name) == name
    assert mask_value("token_env", name) == name


@pytest.mark.parametrize("text", ["hunter2", "Correct-Horse", "correcthorsebattery", "", "A B", "hf_token\nX"])
def test_what_is_no_plain_name_of_a_variable_can_be_the_secret(text: str) -> None:
    assert shown_variable(text) == MASK


def test_a_path_is_shown_and_a_word_in_its_place_is_not() -> None:
    assert shown_secret_file("/run/secrets/first-key") == "/run/secrets/first-key"
    assert shown_secret_file("hunter2") == MASK


def test_words_of_mixed_case_are_no_secrets() -> None:
    for text in ("MyCompanyHuggingfaceToken1", "SmolLM2-135M-Instruct-Q4_K_M", "/var/lib/llama-gguf/models"):
        assert not looks_like_secret(text)


def test_known_values_are_found_in_every_encoding() -> None:
    secret = "p/w d+1"
    text = "a p/w d+1 b p%2Fw%20d%2B1 c p%2Fw+d%2B1 d cC93IGQrMQ== e"
    assert mask_known(text, {secret}) == f"a {MASK} b {MASK} c {MASK} d {MASK}== e"
    assert mask_known("longer-secret", {"longer", "longer-secret"}) == MASK  # no end of the longer one is left
    assert mask_known("ab", {"a", ""}) == "ab"


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


def test_url_without_secrets() -> None:
    assert url_without_secrets("https://u:p@h.org/a/b?x=1#y") == "https://h.org/a/b"
