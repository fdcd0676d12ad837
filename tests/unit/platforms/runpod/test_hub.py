"""The listing of RunPod's hub."""

from __future__ import annotations

import json
from typing import Any

from llama_gguf import __version__
from llama_gguf.platforms import RenderRequest, RunPodOptions, render_runpod
from llama_gguf.platforms.runpod import hub_dockerfile
from llama_gguf.settings import Settings
from support.rendering import KEYED, settings


def listing(chosen: Settings) -> Any:
    return json.loads(render_runpod(chosen, RenderRequest(), RunPodOptions()).files["hub.json"])


def test_the_hub_builds_the_released_image_from_where_its_dockerfile_takes_it() -> None:
    assert hub_dockerfile("").splitlines()[-1] == f"FROM ghcr.io/OWNER/llama-gguf-inference:cuda-{__version__}"
    named = "# a comment\nFROM registry:5000/me/it:cuda-0.0.1\n"
    assert hub_dockerfile(named).splitlines()[-1] == f"FROM registry:5000/me/it:cuda-{__version__}"
    assert hub_dockerfile(hub_dockerfile(named)) == hub_dockerfile(named)


def test_hub_asks_with_our_descriptions_and_types() -> None:
    chosen = settings(
        auth=KEYED, metrics={"key_label": True}, gateway={"drain_seconds": 2.5}, limits={"requests_per_minute": None}
    )
    questions = {entry["key"]: entry for entry in listing(chosen)["config"]["env"]}
    slots = questions["LLAMA_GGUF__ENGINE__SLOTS"]["input"]
    assert (slots["type"], slots["default"], slots["advanced"]) == ("string", "4", False)
    assert slots["description"].startswith("Requests processed at the same time")
    label = questions["LLAMA_GGUF__METRICS__KEY_LABEL"]["input"]
    assert (label["type"], label["default"], label["trueValue"], label["falseValue"]) == (
        "boolean",
        True,
        "true",
        "false",
    )
    assert questions["LLAMA_GGUF__GATEWAY__DRAIN_SECONDS"]["input"]["default"] == 2.5
    assert questions["LLAMA_GGUF__LIMITS__REQUESTS_PER_MINUTE"]["input"]["default"] == "null"
    assert questions["PORT"] == {"key": "PORT", "value": "8000"}


def test_hub_files_an_embedding_model_as_such() -> None:
    chosen = settings(auth=KEYED, engine={"task": "embed"})
    assert listing(chosen)["category"] == "embedding"


def test_hub_asks_for_no_setting_of_several_models() -> None:
    models = {"b": {"name": "b.gguf", "engine": {"task": "generate"}}, "a": {"name": "a.gguf"}}
    several = listing(settings(model={}, models=models, engine={"task": "embed"}))
    assert several["category"] == "language"
    fixed = {entry["key"]: entry["value"] for entry in several["config"]["env"] if "value" in entry}
    assert fixed["LLAMA_GGUF__MODELS"] == '{"b":{},"a":{}}'
    assert fixed["LLAMA_GGUF__MODELS__B__NAME"] == "b.gguf"
