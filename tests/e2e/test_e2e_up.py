"""`llama-gguf up` and `status` as a person meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.appliance import KEY, KEY_VARIABLE, running

pytestmark = pytest.mark.engine


def test_the_printed_call_works_when_pasted(tmp_path: Path, tiny_model: Path) -> None:
    overrides = {"auth": {"bootstrap": {"env": None, "generate": True}}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        (call,) = re.findall(r"^Try: (curl .*)$", appliance.stderr, re.MULTILINE)
        (key,) = re.findall(r"shown only this once: (\S+)$", appliance.stderr, re.MULTILINE)
        assert key in call
        done = subprocess.run(shlex.split(call), capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["object"] == "chat.completion"
        assert key not in appliance.stdout
        first_log = (tmp_path / "data/logs/default/latest").resolve()
        assert not any(key in path.read_text() for path in first_log.iterdir())
        assert appliance.stop() == 0
    with running(tmp_path, model=tiny_model, overrides=overrides) as again:
        again.wait_for(lambda: "Try: " in again.stderr, 20, "the greeting")
        assert "shown only this once" not in again.stderr


def test_secrets_stay_out_of_logs_and_of_what_does_not_need_them(tmp_path: Path, tiny_model: Path) -> None:
    env = {"HF_TOKEN": "hf_0123456789abcdefghij"}
    with running(tmp_path, model=tiny_model, env=env) as appliance:
        appliance.wait_ready()
        assert "starting | version=" in appliance.stdout
        assert "configuration | settings=" in appliance.stdout
        for name in ("engine", "gateway", "health"):
            environment = Path(f"/proc/{appliance.pid(name)}/environ").read_text()
            assert KEY not in environment
            assert KEY_VARIABLE not in environment
        engine = Path(f"/proc/{appliance.pid('engine')}/environ").read_text()
        assert "hf_0123456789" not in engine
        for text in (appliance.stdout, appliance.stderr, (appliance.run_dir / "settings.json").read_text()):
            assert "hf_0123456789" not in text
            assert KEY not in text
        key = (appliance.run_dir / "engine.key").read_text().strip()
        for name in ("engine", "gateway", "health", "listener"):
            assert key not in Path(f"/proc/{appliance.pid(name)}/cmdline").read_text()
        assert appliance.stop() == 0
        assert key not in appliance.stdout


def test_a_wrong_config_is_refused_before_anything_starts(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides={"gateway": {"prot": 1}}) as appliance:
        assert appliance.wait_exit() == 78
        assert "unknown-key" in appliance.stderr
        assert 'did you mean "port"?' in appliance.stderr
        assert not appliance.run_dir.exists()


def test_a_second_up_is_refused_with_its_own_exit_code(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model) as appliance:
        appliance.wait_ready()
        with running(tmp_path / "second", model=tiny_model, run_dir=appliance.run_dir) as second:
            assert second.wait_exit() == 75
            assert "another appliance runs here" in second.stderr
            assert str(appliance.process.pid) in second.stderr
        assert appliance.ping() == 200


def test_a_taken_port_is_named(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path / "one", model=tiny_model) as appliance:
        appliance.wait_ready()
        overrides = {"gateway": {"port": appliance.gateway_port}, "supervisor": {"start_retries": 0}}
        with running(tmp_path / "two", model=tiny_model, overrides=overrides) as second:
            assert second.wait_exit() in {69, 78}
            assert "gateway" in second.stderr
            assert str(appliance.gateway_port) in second.stderr


def test_status(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model) as appliance:
        nothing = appliance.cli("status", "--run-dir", str(tmp_path / "nowhere"))
        assert nothing.returncode == 69
        assert nothing.stdout.startswith("stopped: nothing runs in ")
        appliance.wait_ready()
        # Found through the configuration, as `up` found it.
        done = appliance.cli("status", "--config", str(appliance.config))
        assert done.returncode == 0
        assert done.stdout.startswith(f"ready: http://127.0.0.1:{appliance.gateway_port}, serving")
        for name in ("engine", "gateway", "health"):
            assert re.search(rf"^{name} +(?:running|starting) +\d+ ", done.stdout, re.MULTILINE)
        found = appliance.status()
        assert found["state"] == "ready"
        assert found["failure"] is None
        assert {item["name"] for item in found["programs"]} == {"engine", "gateway", "health", "listener"}
        assert appliance.stop() == 0
        assert appliance.cli("status", "--run-dir", str(appliance.run_dir)).returncode == 69


def test_variables_alone_are_enough(tmp_path: Path, tiny_model: Path) -> None:
    """As on a platform where a template can set variables and nothing else."""
    env = {
        "LLAMA_GGUF__ENGINE__SLOTS": "1",
        "LLAMA_GGUF__LOGGING__FORMAT": "json",
        "LLAMA_GGUF__MODEL__PATH": str(tiny_model),
    }
    with running(tmp_path, model=None, overrides={"model": {}}, env=env) as appliance:
        appliance.wait_ready()
        assert appliance.stop() == 0
        lines = [json.loads(line) for line in appliance.stdout.splitlines()]
        assert {line["program"] for line in lines} >= {"up", "engine", "gateway", "health"}
        assert os.path.lexists(appliance.run_dir / "engine.log")
