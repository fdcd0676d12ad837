"""What the health port says of the real appliance, and that it says it whatever the other programs do."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from support.appliance import running

pytestmark = pytest.mark.engine


def test_a_hung_engine_is_unready_until_it_answers_again(tmp_path: Path, tiny_model: Path) -> None:
    overrides = {"health": {"check_timeout_seconds": 0.2}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        engine = appliance.pid("engine")
        os.kill(engine, signal.SIGSTOP)
        try:
            appliance.wait_for(lambda: appliance.ping() == 503, 10, "unready")
            details = appliance.health()
            assert details is not None
            assert (details["state"], details["phase"], details["was_ready"]) == ("unready", "silent", True)
            assert appliance.ask(appliance.health_port, "/livez").status == 200
            assert appliance.ask(appliance.health_port, "/readyz").status == 503
            assert appliance.ask(appliance.health_port, "/startupz").status == 200
        finally:
            os.kill(engine, signal.SIGCONT)
        appliance.wait_for(lambda: appliance.ping() == 200, 10, "ready again")


def test_failed_for_good_is_500_where_the_container_is_to_stay(tmp_path: Path, tiny_model: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nexit 78\n")
    engine.chmod(0o755)
    overrides = {"engine": {"binary": str(engine)}, "supervisor": {"exit_on_failure": False}}
    with running(tmp_path / "box", model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_for(lambda: appliance.ping() == 500, 20, "failed")
        details = appliance.health()
        assert details is not None
        assert details["state"] == "failed"
        assert "engine" in details["reason"]
        assert appliance.ask(appliance.health_port, "/livez").status == 500
        assert appliance.process.poll() is None
        appliance.wait_for(lambda: "llama-gguf: engine " in appliance.stderr, 5, "the reason on stderr")
        assert appliance.stop() == 78


def test_strangers_learn_no_paths(tmp_path: Path) -> None:
    """The health port asks for no key; the log, `status` and failure.json tell the rest to those who may know."""
    missing = tmp_path / "private place" / "absent.gguf"
    overrides = {"model": {"aliases": ["nice-name"]}, "supervisor": {"exit_on_failure": False}}
    with running(tmp_path / "box", model=missing, overrides=overrides) as appliance:
        appliance.wait_for(lambda: appliance.ping() == 500, 20, "failed")
        bodies = [
            appliance.ask(appliance.health_port, path).body for path in ("/health", "/readyz", "/livez", "/startupz")
        ]
        bodies += [appliance.ask(appliance.gateway_port, path).body for path in ("/health", "/ping", "/nowhere")]
        bodies.append(appliance.post("/v1/completions", {"prompt": "a"}).body)
        assert not any(b"private place" in body or str(tmp_path).encode() in body for body in bodies)
        details = appliance.health()
        assert details is not None
        assert (details["model"], details["state"]) == ("nice-name", "failed")
        assert "engine refused to start" in details["reason"]
        assert str(missing) in json.dumps(appliance.status()["failure"])
        assert str(missing) in appliance.cli("status", "--run-dir", str(appliance.run_dir)).stdout.replace("\n", "")


def test_platforms_are_detected_and_answered_their_own_way(tmp_path: Path, tiny_model: Path) -> None:
    """On Kubernetes any 2xx is a yes, so there `starting` may not be a 204."""
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nexec sleep 60\n")
    engine.chmod(0o755)
    overrides = {"engine": {"binary": str(engine)}, "health": {"platform": "auto", "path": "/healthz"}}
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "RUNPOD_POD_ID": "", "RUNPOD_ENDPOINT_ID": "", "CONTAINER_ID": ""}
    with running(tmp_path / "box", model=tiny_model, overrides=overrides, env=env) as appliance:
        appliance.wait_for(lambda: appliance.ping() is not None, 20, "an answer")
        assert appliance.ask(appliance.health_port, "/healthz").status == 503
        assert appliance.ping() == 404  # the check is elsewhere
        assert "platform=kubernetes" in appliance.stdout
        began = time.monotonic()
        assert appliance.stop() == 0
        assert time.monotonic() - began < 50  # and not the 60 s of its sleep


def test_vast_reads_it_in_the_log(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides={"health": {"platform": "vast"}}) as appliance:
        appliance.wait_ready()
        appliance.wait_for(lambda: "\nllama-gguf-on-load: model ready\n" in appliance.stdout, 5, "the line")
        log = tmp_path / "data/logs/default/latest/health.log"
        assert "llama-gguf-on-load: model ready" in log.read_text().splitlines()
