"""checks: each code appears for its mistake, and not for what is right beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.settings.checks.table import CHECKS, check, touches
from llama_gguf.settings.loading.load import InvalidConfigError, loads
from llama_gguf.settings.schema_tree import settings_schema
from llama_gguf.settings.sections.settings import parse

MODEL = "model: {path: /m.gguf}\n"


def codes(text: str, *, model: str = MODEL) -> list[str]:
    """Return the codes of all problems of a configuration, sorted."""
    try:
        return sorted(problem.code for problem in loads(model + text, Path("c.yaml"), {}).problems)
    except InvalidConfigError as error:
        return sorted(problem.code for problem in error.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # ports and hosts
        ("gateway: {port: 9000}\nhealth: {port: 9000}", ["port-clash"]),
        ("gateway: {port: 9000, host: 127.0.0.1}\nhealth: {port: 9000, host: 127.0.0.2}", []),
        ("gateway: {port: 9000, host: 127.0.0.1}\nhealth: {port: 9000, host: 127.0.0.1}", ["port-clash"]),
        ('gateway: {host: "::"}', []),
        ("gateway: {host: localhost}", []),
        ("gateway: {host: my-box.internal}", []),
        ("gateway: {host: 300.1.1.1}", ["bad-host"]),
        ("health: {host: 10.0.0.1/8}", ["bad-host"]),
        # cors
        ('gateway: {cors: {allow_origins: ["*"]}}', []),
        ('gateway: {cors: {allow_origins: ["*", "https://a.example"]}}', ["no-effect"]),
        ('gateway: {cors: {allow_origins: ["https://a.example:8443"]}}', []),
        ('gateway: {cors: {allow_origins: ["https://u@a.example"]}}', ["bad-origin"]),
        ('gateway: {cors: {allow_origins: ["https://[::1"]}}', ["bad-origin"]),
        (f'gateway: {{cors: {{allow_origins: ["https://{"a" * 2050}"]}}}}', ["bad-origin"]),
        # timeouts
        ("gateway: {timeouts: {idle_seconds: 60, total_seconds: 30}}", ["no-effect"]),
        ("gateway: {timeouts: {total_seconds: 30}}", []),
        # keys
        ("auth: {extra_header: X-API-Key}", ["no-effect"]),
        ("auth: {extra_header: x-my-key}", []),
        ("auth: {bootstrap: {env: A, file: /f}}", ["two-bootstraps"]),
        ("auth: {bootstrap: {env: A}}", []),
        ("auth: {enabled: false}", ["open-to-all"]),
        ("auth: {enabled: false}\ngateway: {host: 127.0.0.1}", []),
        ("auth: {enabled: false}\ngateway: {host: 127.0.0.1}\nmetrics: {require_key: true}", ["no-effect"]),
        # limits
        ("limits: {queue: {max_size: 0, max_size_per_key: 9}}", []),
        ("limits: {queue: {max_size: 9, max_size_per_key: 10}}", ["queue-per-key"]),
        ("limits: {store: 'redis://ada@valkey:6379/0', store_password_env: P}", []),
        ("limits: {store: 'rediss://valkey'}", []),
        ("limits: {store: 'redis://valkey:99999'}", ["bad-store"]),
        ("limits: {store: 'redis://:pw@valkey'}", ["secret-in-url"]),
        ("limits: {store_password_env: P}", ["no-effect"]),
        ("limits: {max_in_flight: 9}\nengine: {slots: 8}", ["in-flight-over-slots"]),
        ("limits: {max_in_flight: 8}\nengine: {slots: 8}", []),
        # engine
        ("engine: {cache_type_v: q4_0, flash_attention: 'on'}", []),
        ("engine: {cache_type_v: bf16, flash_attention: 'off'}", []),
        ("engine: {cache_type_k: q4_0, flash_attention: 'off'}", []),
        ("engine: {cache_type_v: q4_0, flash_attention: 'off'}", ["cache-needs-flash-attention"]),
        ("engine: {batch_size: 256}", ["ubatch-over-batch"]),
        ("engine: {task: embed, context_per_slot: 512, batch_size: 512}", []),
        ("engine: {task: rerank}", ["input-over-batch"]),
        ("engine: {task: embed, pooling: mean, context_per_slot: 512}", []),
        ("engine: {task: embed, pooling: rank, context_per_slot: 512}", ["pooling-unfit"]),
        ("engine: {task: rerank, pooling: rank, context_per_slot: 512}", []),
        ("engine: {task: rerank, pooling: mean, context_per_slot: 512}", ["no-effect"]),
        ("engine: {pooling: mean}", ["no-effect"]),
        ("engine: {slots: 8, batch_size: 8, ubatch_size: 8}", []),
        ("engine: {slots: 9, batch_size: 8, ubatch_size: 8}", ["slots-over-batch"]),
        ("engine: {task: embed, slots: 9, batch_size: 8, context_per_slot: 8}", ["slots-over-batch"]),
        ("engine: {slots: 256, context_per_slot: 8388607}", []),
        ("engine: {slots: 256, context_per_slot: 8388608}", ["context-too-large"]),
        # devices and experts
        ("engine: {devices: [CUDA0, CUDA1], tensor_split: [3, 1], main_gpu: 1, split_mode: row}", []),
        ("engine: {devices: [CUDA0, CUDA0]}", ["bad-devices"]),
        ("engine: {devices: [CUDA0], tensor_split: [1, 1]}", ["bad-devices"]),
        ("engine: {devices: [CUDA0], main_gpu: 1, split_mode: none}", ["bad-devices"]),
        ("engine: {tensor_split: [0, 0]}", ["bad-devices"]),
        ("engine: {tensor_split: [1, 0]}", []),
        ("engine: {split_mode: tensor, flash_attention: 'off'}", ["bad-devices"]),
        ("engine: {split_mode: none, tensor_split: [1, 1]}", ["no-effect"]),
        ("engine: {main_gpu: 0}", ["no-effect"]),
        ("engine: {main_gpu: 0, split_mode: none}", []),
        ("engine: {gpu_layers: 0, devices: [CUDA0], cpu_moe_layers: all}", ["no-effect", "no-effect"]),
        ("engine: {devices: ['CUDA0,CUDA1']}", ["bad-value"]),
        ("engine: {tensor_split: [-1]}", ["bad-value"]),
        ("engine: {cpu_moe_layers: some}", ["bad-value"]),
        ("engine: {load_mode: direct}", ["bad-value"]),
        # RoPE and reuse
        ("engine: {rope: {scaling: yarn, scale: 4, yarn_beta_fast: 32}}", []),
        ("engine: {rope: {scaling: yarn}}", ["no-effect"]),
        ("engine: {rope: {scaling: none, scale: 2}}", ["bad-rope"]),
        ("engine: {rope: {scaling: linear, scale: 2, yarn_beta_slow: 1}}", ["no-effect"]),
        ("engine: {rope: {yarn_beta_slow: 1}}", []),  # the model's file can say yarn
        ("engine: {rope: {scale: 0}}", ["bad-value"]),
        ("engine: {cache_reuse_tokens: 256}", []),
        ("engine: {cache_reuse_tokens: 256, task: rerank, context_per_slot: 512}", ["no-effect"]),
        ("engine: {shrink: {steps: [slots, context, cache_type, layers]}}", []),
        ("engine: {shrink: {steps: [slots], min_slots: 4}}", ["no-effect"]),
        ("engine: {shrink: {steps: [context, layers]}, context_per_slot: 0, gpu_layers: 0}", ["no-effect"] * 2),
        ("engine: {shrink: {steps: [memory]}}", ["bad-value"]),
        # speculative decoding
        ("engine: {speculative: {types: [ngram-simple], max_tokens: 8, ngram_size: 4, ngram_min_hits: 2}}", []),
        ("engine: {speculative: {types: [draft-mtp], max_tokens: 2, min_probability: 0.5}}", []),
        ("engine: {speculative: {types: [draft-simple]}}", ["bad-speculation"]),
        ("engine: {speculative: {types: [draft-mtp, draft-eagle3]}}", ["bad-speculation"]),
        ("engine: {speculative: {types: [ngram-mod]}}", ["shared-drafts"]),
        ("engine: {speculative: {types: [ngram-cache]}}", ["shared-drafts"]),
        ("engine: {speculative: {types: [ngram-mod]}}\nauth: {enabled: false}\ngateway: {host: 127.0.0.1}", []),
        ("engine: {speculative: {types: [ngram-mod], max_tokens: 8}}", ["bad-speculation", "shared-drafts"]),
        ("engine: {speculative: {types: [ngram-mod], max_tokens: 8, min_tokens: 2}}", ["shared-drafts"]),
        ("engine: {speculative: {types: [draft-mtp], max_tokens: 2, min_tokens: 3}}", ["bad-speculation"]),
        ("engine: {speculative: {max_tokens: 2}}", ["no-effect"]),
        ("engine: {speculative: {types: [ngram-simple], min_tokens: 2, min_probability: 0.1}}", ["no-effect"] * 2),
        ("engine: {speculative: {types: [ngram-simple]}, task: rerank, context_per_slot: 512}", ["no-effect"]),
        ("engine: {speculative: {types: [guess]}}", ["bad-value"]),
        ("engine: {speculative: {types: [ngram-simple], max_tokens: 511}}", []),
        ("engine: {speculative: {types: [ngram-simple], max_tokens: 512}}", ["bad-speculation"]),
        ("engine: {speculative: {types: [ngram-simple]}, slots: 41}", []),
        ("engine: {speculative: {types: [ngram-simple]}, slots: 42}", ["bad-speculation"]),
        ("engine: {speculative: {types: [ngram-cache], max_tokens: 1024}, slots: 200}", ["no-effect", "shared-drafts"]),
        (
            "engine: {speculative: {types: [draft-mtp]}, slots: 128, batch_size: 511, ubatch_size: 8}",
            ["bad-speculation"],
        ),
        # reasoning
        ("engine: {reasoning: {mode: 'off', format: none, effort: low, budget_tokens: 0}}", []),
        ("engine: {reasoning: {budget_message: Enough.}}", ["no-effect"]),
        ("engine: {reasoning: {budget_message: Enough., budget_tokens: 9}}", []),
        ("engine: {reasoning: {budget_tokens: -1}}", ["bad-value"]),
        ("engine: {reasoning: {budget_tokens: 9}, task: rerank, context_per_slot: 512}", ["no-effect"]),
        # arguments
        ("engine: {extra_args: [--cache-reuse, '256', --override-kv, 'a=int:1']}", ["argument-has-a-setting"]),
        ("engine: {extra_args: [--cache-reuse, '256'], cache_reuse_tokens: 128}", ["argument-is-a-setting"]),
        ("engine: {extra_args: [--spec-type, ngram-simple]}", ["argument-has-a-setting"]),
        ("engine: {extra_args: [-rea, 'off'], reasoning: {mode: 'off'}}", ["argument-is-a-setting"]),
        ("engine: {extra_args: [--reasoning-budget, '0'], reasoning: {mode: 'off'}}", ["argument-has-a-setting"]),
        ("engine: {extra_args: [--temp, '-0.5']}", []),
        ("engine: {extra_args: [--seed, '-1']}", []),
        ("engine: {extra_args: [--ctx_size, '4096']}", ["argument-is-a-setting"]),
        ("engine: {extra_args: ['--ctx-size=4096']}", ["argument-is-a-setting"]),
        ("engine: {extra_args: [--host, x, --slots]}", ["argument-is-ours", "unsafe-argument"]),
        ("engine: {extra_args: [--slots, --media-path, /d], allow_unsafe_args: true}", []),
        ("engine: {extra_args: [--host, x], allow_unsafe_args: true}", ["argument-is-ours"]),
        ("engine: {extra_args: [-m, /x.gguf]}", ["argument-is-a-setting"]),
        # paths and platforms
        ("health: {path: /readyz}", ["path-clash"]),
        (f"paths: {{run_dir: /{'r' * 80}}}", ["path-too-long"]),
        (f"paths: {{run_dir: /{'r' * 79}}}", []),
        ("paths: {data_dir: ~/data}", ["not-filled-in"]),
        ("auth: {keys_file: '${HOME}/keys.json'}", ["not-filled-in"]),
        ("health: {platform: runpod}\ngateway: {max_body_bytes: 40000000}", ["platform-limit"]),
        ("health: {platform: runpod}\ngateway: {timeouts: {total_seconds: 600}}", ["platform-limit"]),
        ("health: {platform: runpod}", []),
    ],
)
def test_across_sections(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{name: m.gguf}", []),
        ("{name: sub/m.gguf}", []),
        ("{name: ./m.gguf}", []),
        ("{url: 'https://example.com/m.gguf?download=true'}", []),
        ("{url: 'https://example.com/m.gguf?X-Amz-Signature=aa&X-Amz-Expires=60'}", ["signed-url"]),
        ("{url: 'https://example.com/m.gguf?ACCESS_TOKEN=a'}", ["secret-in-url"]),
        ("{url: 'https://token@example.com/m.gguf'}", ["secret-in-url"]),
        ("{url: 'https://'}", ["bad-url"]),
        ("{url: 'https://[::1/m.gguf'}", ["bad-url"]),
        ("{url: 'https://h:99999/m.gguf'}", ["bad-url"]),
        ("{url: 'https://h:port/m.gguf'}", ["bad-url"]),
        ("{url: 'https://h:0/m.gguf'}", ["bad-url"]),
        ("{url: 'http://example.com/m.gguf', token_env: T}", ["token-unencrypted"]),
        ("{path: /m.gguf, token_env: T}", ["no-effect"]),
        ("{path: 'hf://a/b/m.gguf'}", ["address-as-file"]),
        ("{hf: {repo: a/b, file: M.GGUF}}", []),
        ("{hf: {repo: a/b, file: m.bin}}", ["not-gguf"]),
        ("{hf: {repo: a/b, file: m-00001-of-00002.gguf}}", []),
        ("{hf: {repo: a/b, file: m-00002-of-00002.gguf}}", ["model-split"]),
        ("{url: 'https://h/m-00002-of-00002.gguf'}", ["model-split"]),
        ("{url: 'https://h/model.safetensors?download=true'}", ["not-gguf"]),
        ("{url: 'https://h/m.gguf', lora: [{url: 'https://h/adapter.pt'}]}", ["not-gguf"]),
        ("{url: 'https://h/files/4711'}", []),
        ("{url: 'https://huggingface.co/a/b/resolve/main/m.gguf'}", []),
        ("{url: 'https://huggingface.co/a/b/blob/main/m.gguf'}", ["page-url"]),
        ("{url: 'https://HuggingFace.co/a/b'}", ["page-url"]),
        ("{url: 'https://hf.co/a/b:Q4_K_M'}", ["page-url"]),
        ("{url: 'https://huggingface.co/models'}", ["page-url"]),
        ("{url: 'https://huggingface.co/'}", ["page-url"]),
        ("{url: 'https://huggingface.co/datasets/a/b/resolve/main/m.gguf'}", []),
        ("{url: 'https://github.com/a/b/blob/main/m.gguf'}", ["page-url"]),
        ("{url: 'https://github.com/a/b/releases/download/v1/m.gguf'}", []),
        ("{url: 'https://gitlab.com/a/b/-/blob/main/m.gguf'}", ["page-url"]),
        ("{url: 'https://mirror.example.com/a/b/blob/main/m.gguf'}", []),
        ("{path: /m.gguf, lora: [{path: /a.gguf}, {name: b.gguf, url: 'https://x.example/b.gguf'}]}", ["two-sources"]),
        ("{path: /m.gguf, draft: {path: /d.gguf}}", []),
        ("{path: /m.gguf, draft: {path: /m.gguf}}", ["draft-is-model"]),
        ("{path: /m.gguf, mmproj: {path: /p.gguf}}\nengine: {cache_reuse_tokens: 9}", ["no-effect"]),
        ("{path: /m.gguf, draft: {path: /d.gguf}}\nengine: {speculative: {types: [draft-eagle3]}}", []),
        ("{path: /m.gguf, draft: {path: /d.gguf}}\nengine: {speculative: {max_tokens: 4, min_tokens: 1}}", []),
        ("{path: /m.gguf, draft: {path: /d.gguf}}\nengine: {speculative: {types: [ngram-simple]}}", ["no-effect"]),
        ("{path: /m.gguf, draft: {path: /d.gguf}}\nengine: {slots: 4, batch_size: 16, ubatch_size: 8}", []),
        (
            "{path: /m.gguf, draft: {path: /d.gguf}}\nengine: {slots: 5, batch_size: 16, ubatch_size: 8}",
            ["bad-speculation"],
        ),
        ("{path: /m.gguf, aliases: [a, b, a]}", ["duplicate-alias"]),
    ],
)
def test_of_the_model(model: str, expected: list[str]) -> None:
    assert codes("", model=f"model: {model}\n") == expected


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://huggingface.co/a/b/blob/main/sub/m%20x.gguf", "set model.hf: {repo: a/b, file: sub/m x.gguf}"),
        ("https://huggingface.co/a/b/raw/v2/m.gguf", "set model.hf: {repo: a/b, file: m.gguf, revision: v2}"),
        ("https://hf.co/a/b:Q4_K_M", "set model.hf: {repo: a/b, file: FILE}"),
        ("https://huggingface.co/a/b/tree/main", "set model.hf: {repo: a/b, file: FILE}"),
        ("https://huggingface.co/datasets/a", "set model.hf to a repository and a file in it"),
    ],
)
def test_the_address_of_a_page_is_answered_with_what_to_write(url: str, hint: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loads(f"model:\n  url: {url}\n", Path("c.yaml"), {})
    (problem,) = caught.value.problems
    assert (problem.hint, problem.path, problem.line) == (hint, "model.url", 2)


def test_a_name_that_only_suggests_another_format_is_a_warning() -> None:
    """Somebody's server may name GGUF files so."""
    (problem,) = loads("model: {url: 'https://h/model.bin'}", Path("c.yaml"), {}).problems
    assert (problem.code, problem.severity) == ("not-gguf", "warning")


def test_every_check_reads_settings_that_exist() -> None:
    for one in CHECKS:
        for name in one.reads:
            assert settings_schema().at(tuple(name.split("."))) is not None, name


def test_a_check_of_a_setting_that_is_wrong_is_left_out() -> None:
    clash = parse({"model": {"path": "/m"}, "gateway": {"port": 8001}})
    assert [problem.code for problem in check(clash)] == ["port-clash"]
    assert check(clash, skip={"gateway.port"}) == []
    assert check(clash, skip={"gateway"}) == []
    assert check(clash, skip={"gateway.max_headers"}) != []


def test_touches_knows_groups_and_items() -> None:
    assert touches("a.b", {"a"})
    assert touches("a", {"a.b"})
    assert touches("a", {"a[0].b"})
    assert not touches("a.b", {"a.bc"})
