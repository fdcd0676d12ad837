"""What `check` says about a download that could not work, before anything is rented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_gguf.models.preflight import download_problems
from support.model_box import locations_for, settings_for
from support.tiny_model import write_tiny_model

HUB: dict[str, Any] = {"hf": {"repo": "a/b", "file": "c.gguf"}}
URL: dict[str, Any] = {"url": "https://models.test/c.gguf"}


def found(root: Path, model: dict[str, Any], env: dict[str, str]) -> list[tuple[str, str, str]]:
    problems = download_problems(settings_for(root, model), locations_for(root), env)
    for problem in problems:
        assert problem.hint
        assert "geheim" not in problem.message + problem.hint
    return [(problem.severity, problem.code, problem.path) for problem in problems]


@pytest.mark.parametrize(("model", "path"), [(HUB, "model.hf"), (URL, "model.url")], ids=["hub", "url"])
@pytest.mark.parametrize(
    ("env", "severity", "code"),
    [
        ({"ALL_PROXY": "ftp://u:geheim@h"}, "error", "bad-proxy"),
        ({"https_proxy": "http://u:geheim@h:port"}, "error", "bad-proxy"),
        ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "error", "bad-certificates"),
        ({"REQUESTS_CA_BUNDLE": "/nowhere"}, "error", "bad-certificates"),
    ],
    ids=str,
)
def test_the_way_there(
    tmp_path: Path, *, model: dict[str, Any], path: str, env: dict[str, str], severity: str, code: str
) -> None:
    assert found(tmp_path, model, env) == [(severity, code, path)]


@pytest.mark.parametrize(
    "env", [{}, {"ALL_PROXY": "socks5://h:1"}, {"HTTP_PROXY": "ftp://h"}, {"HF_TOKEN": "hf_geheim"}], ids=str
)
def test_nothing_to_say(tmp_path: Path, env: dict[str, str]) -> None:
    assert found(tmp_path, HUB, env) == []


def test_tokens(tmp_path: Path) -> None:
    assert found(tmp_path, HUB, {"HF_TOKEN": '"hf_geheim"'}) == [("warning", "quoted-variable", "model.hf")]
    assert found(tmp_path, HUB, {"HUGGING_FACE_HUB_TOKEN": "hf geheim"}) == [("error", "bad-token", "model.hf")]
    assert found(tmp_path, URL, {"HF_TOKEN": '"hf_geheim"'}) == []
    assert found(tmp_path, URL | {"token_env": "T"}, {"T": "hf geheim"}) == [("error", "bad-token", "model.url")]
    assert found(tmp_path, HUB | {"token_env": "T"}, {"T": "hf_geheim", "HF_TOKEN": "hf geheim"}) == []


def test_a_token_in_a_file(tmp_path: Path) -> None:
    env = {"HF_TOKEN_PATH": str(tmp_path / "token")}
    assert found(tmp_path, HUB, env) == [("warning", "token-file-missing", "model.hf")]
    assert found(tmp_path, HUB, env | {"HF_TOKEN": "hf_geheim"}) == []
    assert found(tmp_path, URL, env) == []
    (tmp_path / "token").write_text("hf_geheim\n")
    assert found(tmp_path, HUB, env) == []
    assert found(tmp_path, HUB, env | {"HF_ENDPOINT": "http://hub.test"}) == [
        ("warning", "token-unencrypted", "model.hf")
    ]
    (tmp_path / "token").write_text("hf geheim\n")
    assert found(tmp_path, HUB, env) == [("error", "bad-token", "model.hf")]


def test_another_hub(tmp_path: Path) -> None:
    for wrong in ("hub.test", '"https://hub.test"', "https://hub.test:99999", "https://[::1", "https://"):
        assert found(tmp_path, HUB, {"HF_ENDPOINT": wrong}) == [("error", "bad-url", "model.hf")]
    token = {"HF_TOKEN": "hf_geheim"}
    assert found(tmp_path, HUB, token | {"HF_ENDPOINT": "http://hub.test"}) == [
        ("warning", "token-unencrypted", "model.hf")
    ]
    assert found(tmp_path, HUB, token | {"HF_ENDPOINT": "http://localhost:8080"}) == []


def test_each_thing_once_and_nothing_of_what_is_on_disk(tmp_path: Path) -> None:
    env = {"ALL_PROXY": "ftp://h"}
    both = HUB | {"mmproj": {"hf": {"repo": "a/b", "file": "p.gguf"}}}
    assert found(tmp_path, both, env) == [("error", "bad-proxy", "model.hf")]
    snapshot = tmp_path / "models" / "huggingface" / "models--a--b" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    write_tiny_model(snapshot / "c.gguf")
    assert found(tmp_path, HUB, env) == []
