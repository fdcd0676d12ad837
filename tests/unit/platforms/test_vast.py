"""Vast's flags survive both readers: a shell, and Vast's own, which knows no escapes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.errors import ConfigError
from llama_gguf.platforms import RenderRequest, VastOptions, render_vast
from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.container import prepare
from llama_gguf.platforms.vast import MAX_ENV_CHARACTERS, env_flags, quote
from support.rendering import settings


def read_as_vast(flags: str) -> dict[str, str]:
    """Read flags as Vast does: split at spaces outside of quotation marks, strip the marks off a value's ends."""
    words, word, single, double = [], "", False, False
    for character in flags:
        if character == " " and not single and not double:
            words.append(word)
            word = ""
            continue
        single ^= character == "'"
        double ^= character == '"'
        word += character
    words.append(word)
    found: dict[str, str] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        if flag == "-e":
            name, _, text = value.partition("=")
            found[name] = text.strip("'\"")
        else:
            found[f"{flag} {value}"] = "1"
    return found


def read_as_shell(flags: str) -> dict[str, str]:
    words = shlex.split(flags)
    found: dict[str, str] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        name, _, text = value.partition("=") if flag == "-e" else (f"{flag} {value}", "", "1")
        found[name] = text
    return found


@given(st.text(st.sampled_from("ab \"'$`\\[]{},:=%&;|*?~#\tü"), max_size=24))
def test_what_is_quoted_is_read_back_by_both_readers(value: str) -> None:
    quoted = quote(value)
    if quoted is None:
        assert set(value) & set("'\"")
        return
    flags = f"-e A={quoted} -p 1:1"
    assert read_as_vast(flags) == {"A": value, "-p 1:1": "1"}
    assert read_as_shell(flags) == {"A": value, "-p 1:1": "1"}


@pytest.mark.parametrize("value", ["", "a", "a b", '["a","b c"]', "it's it's", "https://x/y?a=b&c=d"])
def test_usual_values_can_be_quoted(value: str) -> None:
    assert quote(value) is not None


@pytest.mark.parametrize("value", ['it\'s "x"', "'a b", 'a b"', "it's $HOME", 'an odd " b'])
def test_what_no_form_can_carry_is_refused(value: str) -> None:
    assert quote(value) is None


def test_flags_carry_settings_secrets_and_port() -> None:
    chosen = settings(
        model={"url": "https://x/y.gguf?a=b", "token_env": "HF_TOKEN", "aliases": ["a b", "c"]}, gateway={"port": 9000}
    )
    findings = Findings("Vast.ai")
    launch = prepare(chosen, RenderRequest(), findings, {})
    found = read_as_vast(env_flags(launch, findings))
    assert found["LLAMA_GGUF__MODEL__ALIASES"] == '["a b","c"]'
    assert found["LLAMA_GGUF__MODEL__URL"] == "https://x/y.gguf?a=b"
    assert found["HF_TOKEN"] == ""
    assert found["FIRST_API_KEY"] == ""
    assert "-p 9000:9000" in found
    assert "LLAMA_GGUF__GATEWAY__PORT" in found


def errors(chosen: Any, options: VastOptions) -> set[str]:
    with pytest.raises(ConfigError) as caught:
        render_vast(chosen, RenderRequest(), options)
    return {problem.code for problem in caught.value.problems if problem.severity == "error"}


def test_limits_are_errors_that_say_what_to_do() -> None:
    many = settings(auth={"keys_file": "/data/k"}, engine={"extra_args": [f"--{i:03}" for i in range(60)]})
    assert errors(many, VastOptions()) == {"variable-too-long"}
    assert errors(settings(), VastOptions(arguments="x" * 4097)) == {"arguments-too-long"}


def test_the_whole_string_has_a_limit() -> None:
    findings = Findings("Vast.ai")
    secrets = tuple(f"SECRET_{i:05}_{'x' * 100}" for i in range(400))
    launch = prepare(settings(), RenderRequest(secrets=secrets), findings, {})
    assert len(env_flags(launch, findings)) > MAX_ENV_CHARACTERS
    assert "variables-too-long" in {problem.code for problem in findings.problems}


@pytest.mark.parametrize(
    ("image", "fields"),
    [
        ("a/b:1.2", {"image": "a/b", "tag": "1.2"}),
        ("a/b", {"image": "a/b"}),
        ("host:5000/a/b", {"image": "host:5000/a/b"}),
        ("host:5000/a/b:1", {"image": "host:5000/a/b", "tag": "1"}),
        ("a/b@sha256:00", {"image": "a/b@sha256:00"}),
    ],
)
def test_image_and_tag_are_two_fields(image: str, fields: dict[str, str]) -> None:
    bundle = render_vast(settings(), RenderRequest(image=image), VastOptions())
    tree = json.loads(bundle.files["template.json"])
    assert {name: tree[name] for name in ("image", "tag") if name in tree} == fields
    assert ("by digest" in tree["readme"]) == ("sha256" not in image)


def test_filters_follow_the_variant() -> None:
    def filters(variant: Any) -> Any:
        bundle = render_vast(settings(), RenderRequest(variant=variant), VastOptions())
        return json.loads(bundle.files["template.json"])["extra_filters"]

    assert filters("cuda") == {"num_gpus": {"eq": 1}, "cuda_max_good": {"gte": 13.0}, "compute_cap": {"gte": 750}}
    assert filters("cuda12")["cuda_max_good"] == {"gte": 12.0}
    assert filters("cpu") == {"num_gpus": {"eq": 1}}
