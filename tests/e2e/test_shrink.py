"""An engine that runs out of memory, by a real limit, is started with less, as far as the operator allows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance, running

pytestmark = pytest.mark.engine

# Address space that llama-server needs for 16 slots: 1.1 GB, for 8: 720 MB, for 8 of half the context: 500 MB.
LARGE = {"slots": 16, "context_per_slot": 131_072, "prompt_cache_mib": 0}
LIMIT_KIB = 610_000
SECONDS = 60.0


def limited(folder: Path, binary: Path) -> str:
    """Return a llama-server that can have so much memory only."""
    script = folder / "llama-server"
    script.write_text(f'#!/bin/sh\nulimit -v {LIMIT_KIB}\nexec {shlex.quote(str(binary))} "$@"\n')
    script.chmod(0o755)
    return str(script)


def gateway_slots(appliance: Appliance) -> object:
    return appliance.get("/health").json()["queue"]["max"]


def test_it_is_started_with_less_until_it_fits(tmp_path: Path, tiny_model: Path, engine_binary: Path) -> None:
    engine: dict[str, Any] = {**LARGE, "binary": limited(tmp_path, engine_binary)}
    engine["shrink"] = {"steps": ["slots", "context"], "min_slots": 8, "min_context_per_slot": 1024}
    with running(tmp_path, model=tiny_model, overrides={"engine": engine}) as appliance:
        appliance.wait_ready(SECONDS)
        (warning,) = [one for one in appliance.status()["warnings"] if one["code"] == "engine-reduced"]
        assert "slots 8 instead of 16, context_per_slot " in warning["message"]
        health = appliance.health()
        assert health is not None
        assert warning in health["warnings"]
        arguments = Path(f"/proc/{appliance.pid('engine')}/cmdline").read_text().split("\0")
        assert arguments[arguments.index("--parallel") + 1] == "8"
        appliance.wait_for(lambda: gateway_slots(appliance) == 8, SECONDS, "the gateway lets in as many")
        body = {"prompt": "Hello", "max_tokens": 4, "temperature": 0}
        assert appliance.post("/v1/completions", body).status == 200
        record = json.loads((appliance.run_dir / "reduction-engine.json").read_text())
        assert len(record["after"]) >= 2  # supervisord itself would have given up after one
        assert appliance.stdout.count("it is started with less") == len(record["after"])
        # A crash for another reason changes nothing more.
        killed = appliance.kill("engine")
        appliance.wait_for(lambda: appliance.pid("engine") not in (0, killed), SECONDS, "another engine")
        appliance.wait_ready(SECONDS)
        after = json.loads((appliance.run_dir / "reduction-engine.json").read_text())
        assert record["pid"] == killed
        assert killed not in after["after"]


@pytest.mark.parametrize("shrink", [{}, {"steps": ["slots"], "min_slots": 16}])
def test_without_leave_it_is_the_failure_it_was(
    tmp_path: Path, tiny_model: Path, engine_binary: Path, shrink: dict[str, Any]
) -> None:
    engine = {**LARGE, "binary": limited(tmp_path, engine_binary), "shrink": shrink}
    with running(tmp_path, model=tiny_model, overrides={"engine": engine}) as appliance:
        assert appliance.wait_exit(SECONDS) != 0
        failure = json.loads((appliance.run_dir / "failure.json").read_text())
        assert failure["cause"] == "the machine or container is out of memory"
        assert "it is started with less" not in appliance.stdout
