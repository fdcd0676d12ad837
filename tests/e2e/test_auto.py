"""Settings that are auto: what runs is what the plan chose for the memory there is, and the gateway counts with it."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance, running
from support.many_models import ManyModels, many_models
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

SECONDS = 60.0
TRAINED = 131_072
AUTO = {"context_per_slot": "auto", "slots": 4, "batch_size": "auto", "prompt_cache_mib": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose whole context takes 32 MiB in each slot."""
    return write_tiny_model(tmp_path_factory.mktemp("m") / "long.gguf", context=TRAINED)


def box_of(folder: Path, binary: Path, models: dict[str, dict[str, Any]], host_mib: int) -> Any:
    return many_models(folder, binary, models, memory={"host_mib": host_mib})


def arguments(appliance: Appliance, program: str) -> dict[str, str]:
    words = Path(f"/proc/{appliance.pid(program)}/cmdline").read_text().split("\0")
    return dict(itertools.pairwise(words))


def in_force(appliance: Appliance, program: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((appliance.run_dir / f"auto-{program}.json").read_text())
    return found


def test_the_context_is_what_fits_into_a_budget(tmp_path: Path, engine_binary: Path, model: Path) -> None:
    models = {"a": {"path": str(model), "engine": AUTO}}
    with box_of(tmp_path, engine_binary, models, 150) as box:
        box.wait_state("a", "loaded")
        record = in_force(box.appliance, "engine-a")
        context = record["values"]["context_per_slot"]
        assert 32_768 < context < TRAINED
        assert context % 256 == 0
        assert record["reasons"]["context_per_slot"].startswith("the most that fits with 4 slots, of 131072")
        given = arguments(box.appliance, "engine-a")
        assert given["--ctx-size"] == str(4 * context)
        assert given["--batch-size"] == str(record["values"]["batch_size"])
        phase = json.loads((box.appliance.run_dir / "engine-a.json").read_text())
        (told,) = [one for one in phase["warnings"] if one["code"] == "engine-auto"]
        assert f"context_per_slot {context} (the most that fits" in told["message"]
        shown = {one["id"]: one for one in box.get("/v1/models", key="ann").json()["data"]}
        assert shown["a"]["context"] == context
        refuses_more(box, context)


def refuses_more(box: ManyModels, context: int) -> None:
    """A prompt that is longer than what was chosen is the client's mistake, with the numbers."""
    body = {"model": "a", "prompt": [5] * (context + 10), "max_tokens": 1}
    found = box.post("/v1/completions", body, key="ann")
    assert found.status == 400, found.body
    error = found.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert str(context) in error["message"]
    assert box.complete("a", key="ann").status == 200


def test_slots_are_as_many_as_fit_and_the_gateway_lets_in_as_many(
    tmp_path: Path, engine_binary: Path, model: Path
) -> None:
    engine = {"slots": "auto", "context_per_slot": 65_536, "prompt_cache_mib": 0}
    models = {"a": {"path": str(model), "engine": engine}}
    with box_of(tmp_path, engine_binary, models, 200) as box:
        box.wait_state("a", "loaded")
        slots = in_force(box.appliance, "engine-a")["values"]["slots"]
        assert 2 <= slots <= 7
        assert arguments(box.appliance, "engine-a")["--parallel"] == str(slots)
        many = box.complete("a", key="ann", n=slots)
        assert many.status == 200, many.body
        assert len(many.json()["choices"]) == slots
        more = box.complete("a", key="ann", n=slots + 1)
        assert more.status == 400, more.body
        assert more.json()["error"]["message"].startswith(f"`n` must not be more than {slots}")
        assert box.appliance.get("/health").json()["queue"]["max"] == slots


def test_of_one_model_status_and_health_tell_what_was_chosen(tmp_path: Path, engine_binary: Path, model: Path) -> None:
    engine: dict[str, Any] = {
        "binary": str(engine_binary),
        "context_per_slot": "auto",
        "slots": 2,
        "prompt_cache_mib": 0,
    }
    engine |= {"prompt_cache_mib": 0, "cache_type_k": "auto", "cache_type_v": "auto"}
    with running(tmp_path, model=model, overrides={"engine": engine}) as appliance:
        appliance.wait_ready(SECONDS)
        (told,) = [one for one in appliance.status()["warnings"] if one["code"] == "engine-auto"]
        assert f"context_per_slot {TRAINED} (what the model was trained for, for each slot)" in told["message"]
        assert "cache_type_k f16 (full precision fits)" in told["message"]
        health = appliance.health()
        assert health is not None
        assert told in health["warnings"]
        killed = appliance.kill("engine")
        appliance.wait_for(lambda: appliance.pid("engine") not in (0, killed), SECONDS, "another engine")
        appliance.wait_ready(SECONDS)
        assert in_force(appliance, "engine")["values"]["context_per_slot"] == TRAINED


def test_out_of_memory_all_the_same_it_is_started_with_less_than_was_chosen(
    tmp_path: Path, engine_binary: Path, model: Path
) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text(f'#!/bin/sh\nulimit -v 610000\nexec {shlex.quote(str(engine_binary))} "$@"\n')
    binary.chmod(0o755)
    engine: dict[str, Any] = {"binary": str(binary), "context_per_slot": "auto", "slots": 16, "prompt_cache_mib": 0}
    engine["shrink"] = {"steps": ["context"], "min_context_per_slot": 1024}
    with running(tmp_path, model=model, overrides={"engine": engine}) as appliance:
        appliance.wait_ready(SECONDS)
        assert in_force(appliance, "engine")["values"] == {"context_per_slot": TRAINED}
        reduced = json.loads((appliance.run_dir / "reduction-engine.json").read_text())["values"]["context_per_slot"]
        assert reduced < TRAINED
        assert arguments(appliance, "engine")["--ctx-size"] == str(16 * reduced)
        told = {one["code"]: one["message"] for one in appliance.status()["warnings"]}
        assert f"context_per_slot {reduced} instead of {TRAINED}" in told["engine-reduced"]
        appliance.wait_for(
            lambda: appliance.get("/v1/models").json()["data"][0]["context"] == reduced, SECONDS, "the gateway knows"
        )
