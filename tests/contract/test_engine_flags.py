"""The real llama-server knows every argument we pass, takes every value we give, and our list of it is fresh."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from llama_gguf.engine.argv import build_argv
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.flags import flag_dump
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.settings import locate
from llama_gguf.settings.checks.reserved_args import RULES
from llama_gguf.settings.sections.engine_parts.speculative import SpeculationType
from support.model_box import settings_for

ROOT = Path(__file__).parents[2]
DUMP = ROOT / "schema" / "engine" / "flags.json"
GOLDEN = sorted((ROOT / "tests" / "golden" / "argv").glob("*.txt"))

REPEATABLE = {"--spec-type", "--spec-draft-ngl", "--no-mmproj-offload", "--log-prefix", "--no-log-timestamps"}
"""Arguments of ours that extra_args may hold too: the last one wins, and nothing of ours depends on them."""


def known() -> dict[str, dict[str, Any]]:
    return {name: flag for flag in json.loads(DUMP.read_text())["flags"] for name in flag["names"]}


@pytest.mark.engine
def test_the_dump_is_of_the_installed_engine(engine_binary: Path) -> None:
    assert engine_binary.is_file()
    assert flag_dump() == DUMP.read_text(), "run `make gen`"


@pytest.mark.parametrize("case", GOLDEN, ids=lambda path: path.stem)
def test_every_argument_is_known(case: Path) -> None:
    flags, words = known(), case.read_text().splitlines()
    while words:
        name = words.pop(0)
        assert name in flags, f"llama-server knows no {name}"
        assert not flags[name]["removed"]
        if flags[name]["value"]:
            words.pop(0)


def test_whatever_we_pass_cannot_be_passed_twice() -> None:
    refused = {name for rule in RULES for name in rule.names}
    passed = set()
    for case in GOLDEN:
        extra = (
            yaml.safe_load(case.with_suffix(".yaml").read_text())["settings"].get("engine", {}).get("extra_args", ())
        )
        passed |= {word for word in case.read_text().splitlines() if word.startswith("--") and word not in extra}
    assert passed - refused - REPEATABLE == set()


def test_the_rules_of_extra_args_are_about_real_arguments() -> None:
    assert {name for rule in RULES for name in rule.names} - set(known()) == set()


@pytest.mark.engine
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_real_parser_takes_everything(engine_binary: Path, tmp_path: Path, log_format: str) -> None:
    """`--version` comes last: llama-server reads and checks all that stands before it."""
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    model: dict[str, object] = {"path": "/m.gguf", "aliases": ["a b"]}
    settings = settings_for(
        tmp_path,
        model,
        logging={"format": log_format, "level": "debug"},
        engine={
            "gpu_layers": "all",
            "threads": 2,
            "cache_type_k": "iq4_nl",
            "cache_type_v": "q5_1",
            "flash_attention": "on",
            "sleep_idle_seconds": 60.0,
            "split_mode": "row",
            "tensor_split": [3, 1.5],
            "main_gpu": 0,
            "cpu_moe_layers": 4,
            "load_mode": "mmap+mlock",
            "numa": "isolate",
            "cache_reuse_tokens": 256,
            "rope": {
                "scaling": "yarn",
                "scale": 1e-5,
                "freq_base": 1e12,
                "yarn_original_context": 2048,
                "yarn_extrapolation_factor": 0.5,
                "yarn_attention_factor": 1,
                "yarn_beta_slow": 1,
                "yarn_beta_fast": 32,
            },
            "reasoning": {
                "mode": "on",
                "format": "deepseek",
                "effort": "xhigh",
                "budget_tokens": 0,
                "budget_message": "-1 --host",
            },
            "speculative": {
                "types": [*get_args(SpeculationType)],
                "max_tokens": 1024,
                "min_tokens": 0,
                "min_probability": 0.25,
                "ngram_size": 1024,
                "ngram_min_hits": 65535,
            },
        },
    )
    locations = locate(settings, {})
    locations.run.root.mkdir()
    locations.run.engine_key.write_text("key\n")
    files = ModelFiles(
        model=Path("/m.gguf"),
        mmproj=Path("/p.gguf"),
        draft=Path("/d.gguf"),
        lora=(LoraFile(Path('/with,comma and "quote".gguf'), 0.25), LoraFile(Path("/b.gguf"))),
        chat_template=template,
    )
    argv = build_argv(settings, locations, files)
    done = subprocess.run(
        [engine_binary, *argv, "--version"],
        env=engine_environment(os.environ, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "version:" in done.stdout + done.stderr
