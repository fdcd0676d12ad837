"""Where the hub's token comes from, in the order of Hugging Face's own tools; and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.models.token import Token, hub_token, missing_token_file, token_file, valid_token


def test_the_order_is_the_hubs_own(tmp_path: Path) -> None:
    for name, token in (("explicit", "hf_explicit"), ("home/token", "hf_home"), ("xdg/huggingface/token", "hf_xdg")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f" {token}\r\n")
    login = tmp_path / "user" / ".cache" / "huggingface" / "token"
    login.parent.mkdir(parents=True)
    login.write_text("hf_login")
    env = {
        "HF_TOKEN": "hf_first",
        "HUGGING_FACE_HUB_TOKEN": "hf_second",
        "HF_TOKEN_PATH": str(tmp_path / "explicit"),
        "HF_HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HOME": str(tmp_path / "user"),
    }
    found = []
    for name in list(env):
        found.append(hub_token(env))
        del env[name]
    assert found == [
        Token("hf_first", "HF_TOKEN"),
        Token("hf_second", "HUGGING_FACE_HUB_TOKEN"),
        Token("hf_explicit", str(tmp_path / "explicit")),
        Token("hf_home", str(tmp_path / "home" / "token")),
        Token("hf_xdg", str(tmp_path / "xdg" / "huggingface" / "token")),
        Token("hf_login", str(login)),
    ]
    assert "hf_" not in repr(found)


def test_the_same_file_as_the_hubs_own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    script = "from huggingface_hub import constants; print(constants.HF_TOKEN_PATH)"
    for extra in ({}, {"XDG_CACHE_HOME": "/x"}, {"HF_HOME": "~/h"}, {"HF_TOKEN_PATH": "/t", "HF_HOME": "/h"}):
        env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **extra}
        theirs = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        assert str(token_file(env)) == os.path.expanduser(theirs.stdout.strip().replace("~", str(tmp_path)))  # noqa: PTH111


def test_nothing_and_blanks_are_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    (tmp_path / "file").write_text("")
    for path in ("token", "none", "file/below"):
        assert hub_token({"HF_TOKEN": " ", "HF_TOKEN_PATH": str(tmp_path / path)}) is None
    assert valid_token("T", {"T": "''"}) is None


def test_what_cannot_be_a_token_is_told_without_it(tmp_path: Path) -> None:
    wrong = {"a b": "contains blanks", "line\nline": "contains blanks", "": "Is a directory"}
    for number, (content, message) in enumerate(wrong.items()):
        path = tmp_path / f"token{number}"
        if content:
            path.write_text(content)
        else:
            path.mkdir()
        with pytest.raises(ConfigError, match=message) as caught:
            hub_token({"HF_TOKEN_PATH": str(path)})
        assert caught.value.message.startswith(f"{path}: ")
        assert caught.value.hint
        assert not content or content not in caught.value.message
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is not a text"):
        hub_token({"HF_TOKEN_PATH": str(tmp_path / "binary")})


def test_a_token_instead_of_a_path_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"HF_TOKEN_PATH": "hf_0123456789abcdefghij"}
    assert hub_token(env) is None
    assert missing_token_file(env) == "***"


def test_a_file_that_is_named_but_missing(tmp_path: Path) -> None:
    env = {"HF_TOKEN_PATH": str(tmp_path / "none")}
    assert missing_token_file(env) == str(tmp_path / "none")
    assert missing_token_file(env | {"HF_TOKEN": "hf_x"}) == ""
    assert missing_token_file({"HF_HOME": str(tmp_path)}) == ""
    (tmp_path / "none").write_text("hf_x")
    assert missing_token_file(env) == ""
