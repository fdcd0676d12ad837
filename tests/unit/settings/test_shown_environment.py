"""Values of variables are withheld unless their names are known to be harmless."""

from __future__ import annotations

import pytest

from llama_gguf.settings import parse
from llama_gguf.settings.redaction import MASK
from llama_gguf.settings.shown_environment import secret_values, shown_environment


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/opt/x"),
        ("LC_ALL", "C.UTF-8"),
        ("CUDA_VISIBLE_DEVICES", "GPU-5f4dcc3b"),
        ("RUNPOD_POD_ID", "abc123"),
        ("LLAMA_GGUF__GATEWAY__PORT", "9000"),
        ("LLAMA_GGUF__ENGINE__GPU_LAYERS", "all"),
        ("LLAMA_GGUF__AUTH__ENABLED", "true"),
        ("LLAMA_GGUF__PATHS__DATA_DIR", "/data"),
        ("LLAMA_GGUF__AUTH__BOOTSTRAP__FILE", "/run/secrets/first"),
        ("EMPTY", ""),
    ],
)
def test_harmless_values_are_shown(name: str, value: str) -> None:
    assert shown_environment({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MYTOKEN", "hunter2"),
        ("DBPASS", "hunter2"),
        ("SLACK_URL", "https://hooks.slack.com/services/T0/B0/hunter2"),
        ("DATABASE", "Server=h;Pwd=hunter2"),
        ("LICENCE", "AAAA-BBBB-hunter2"),
        ("NVIDIA_API_KEY", "hunter2"),
        ("CUDA_SECRET", "hunter2"),
        ("GGML_TOKEN", "hunter2"),
        ("HTTPS_PROXY", "http://u:hunter2@proxy:1"),
        ("HTTPS_PROXY", "u:hunter2@proxy:1"),
        ("LLAMA_GGUF__GATEWAY__PORT", "hunter2"),
        ("LLAMA_GGUF__AUTH__ENABLED", "hunter2"),
        ("LLAMA_GGUF__AUTH__BOOTSTRAP__FILE", "hunter2"),
        ("LLAMA_GGUF__AUTH__BOOTSTRAP__ENV", "hunter2"),
        ("LLAMA_GGUF__MODEL__TOKEN_ENV", "hunter2"),
        ("LLAMA_GGUF__ENGINE__EXTRA_ARGS", '["--api-key", "hunter2"]'),
        ("LLAMA_GGUF__NO__SUCH", "hunter2"),
        ("LLAMA_GGUF_TOKENS", "hunter2"),
        ("LC_ALL", "sk-hunter2hunter2"),
        ("path", "hunter2"),
    ],
)
def test_everything_else_is_withheld(name: str, value: str) -> None:
    assert shown_environment({name: value}) == {name: MASK}


def test_a_secret_in_the_place_of_a_name() -> None:
    assert shown_environment({"export hf_0123456789abcdefghij": ""}) == {MASK: ""}


def test_a_harmless_url_is_shown_without_its_password() -> None:
    assert shown_environment({"HF_ENDPOINT": "https://u:hunter2@hub"}) == {"HF_ENDPOINT": f"https://{MASK}@hub"}


def test_it_is_sorted() -> None:
    assert list(shown_environment({"B": "1", "A": "2"})) == ["A", "B"]


def test_values_of_variables_that_the_settings_name_are_secret() -> None:
    settings = parse(
        {
            "model": {"url": "https://x/m.gguf", "token_env": "WEIGHTS", "lora": [{"url": "u", "token_env": "LORA"}]},
            "auth": {"bootstrap": {"env": "FIRST"}},
            "limits": {"store": "redis://r", "store_password_env": "STORE"},
        }
    )
    env = {"WEIGHTS": "weights-1", "LORA": "'adapter-1'", "FIRST": "first-one", "STORE": "a-store", "MYTOKEN": "my-one"}
    assert secret_values({**env, "OTHER": "harmless"}, settings) == {
        *("weights-1", "adapter-1", "first-one", "a-store", "my-one")
    }
    assert secret_values(env, None) == {"my-one"}
    more = {"LICENCE": "AAAA-BBBB-CCCC", "PLACE": "/mnt/models/large", "MODEL_NAME": "tiny-model-q4", "WORD": "short"}
    assert secret_values(more, None, {"MODEL_NAME"}) == {"AAAA-BBBB-CCCC"}
    assert secret_values({"LLAMA_GGUF__MODEL__URL": "https://example.com/m.gguf"}, None) == frozenset()
    assert secret_values({"MYTOKEN": "short"}, None) == frozenset()  # it would be found in ordinary words
