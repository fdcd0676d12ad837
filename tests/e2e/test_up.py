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
from support.file_server import Remote, file_server
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine


def test_the_printed_call_works_when_pasted(tmp_path: Path, tiny_model: Path) -> None:
    overrides = {"auth": {"bootstrap": {"env": None, "generate": True}}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        (call,) = re.findall(r"^Try: (curl .*)$", appliance.stderr, re.MULTILINE)
        (key,) = re.findall(r"shown only once: (\S+)$", appliance.stderr, re.MULTILINE)
        assert key in call
        done = subprocess.run(shlex.split(call), capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["object"] == "chat.completion"
        assert key not in appliance.stdout
        first_log = (tmp_path / "data/logs/default/latest").resolve()
        assert not any(key in path.read_text() for path in first_log.iterdir())
        assert appliance.stop() == 0
    with running(tmp_path, model=tiny_model, overrides=overrides) as again:
        again.wait_for(lambda: "Try: " in again.stderr, 20, "the greeting")
        assert "shown only once" not in again.stderr


def test_secrets_stay_out_of_logs(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, env={"HF_TOKEN": "hf_0123456789abcdefghij"}) as appliance:
        appliance.wait_ready()
        assert "starting | version=" in appliance.stdout
        assert "configuration | settings=" in appliance.stdout
        for text in (appliance.stdout, appliance.stderr, (appliance.run_dir / "settings.json").read_text()):
            assert "hf_0123456789" not in text
            assert KEY not in text
        key = (appliance.run_dir / "engine.key").read_text().strip()
        for name in ("engine", "gateway", "health", "listener"):
            assert key not in Path(f"/proc/{appliance.pid(name)}/cmdline").read_text()
        assert appliance.stop() == 0
        assert key not in appliance.stdout


def test_secrets_reach_only_the_program_that_needs_them(tmp_path: Path, tiny_model: Path) -> None:
    """The engine's program fetches the model with its token, and llama-server, which it becomes, has none."""
    hub, weights, store, proxy = "hf_0123456789abcdefghij", "weights-token-1", "store-password-1", "u:pass@10.0.0.1"
    foreign = {"RUNPOD_API_KEY": "rpa_foreign", "AWS_SECRET_ACCESS_KEY": "foreign", "DATABASE_URL": "x://a:foreign@b"}
    env = {"HF_TOKEN": hub, "WEIGHTS": weights, "STORE": store, "HTTPS_PROXY": f"http://{proxy}", **foreign}
    with file_server() as site:
        site.files["/m.gguf"] = Remote(tiny_model.read_bytes(), token=weights)
        overrides = {
            "model": {"url": site.url("/m.gguf"), "token_env": "WEIGHTS"},
            "limits": {"store_password_env": "STORE"},
        }
        with running(tmp_path, model=None, overrides=overrides, env=env) as appliance:
            appliance.wait_ready()
            seen = {
                name: Path(f"/proc/{appliance.pid(name)}/environ").read_text()
                for name in ("engine", "gateway", "health", "listener", "supervisord")
            }
            ini = (appliance.run_dir / "supervisord.ini").read_text()
    for name, environment in seen.items():
        held = {word for word in (hub, weights, store, proxy, KEY, "foreign") if word in environment}
        # llama-server may reach the network through the proxy: for pictures that a request names.
        assert held == {"gateway": {store}, "supervisord": {hub, weights, store, proxy}, "engine": {proxy}}.get(
            name, set()
        )
        assert KEY_VARIABLE not in environment
    assert not any(word in ini for word in (hub, weights, store, proxy))


def test_a_wrong_config_is_refused_before_anything_starts(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides={"gateway": {"prot": 1}}) as appliance:
        assert appliance.wait_exit() == 78
        assert "unknown-key" in appliance.stderr
        assert 'did you mean "port"?' in appliance.stderr
        assert not appliance.run_dir.exists()


@pytest.mark.parametrize(("number", "retries"), [("ILL", 5), ("SEGV", 1)])
def test_an_engine_that_cannot_run_here_is_no_wrong_configuration(
    tmp_path: Path, tiny_model: Path, number: str, retries: int
) -> None:
    engine = tmp_path / "llama-server"
    engine.write_text(f"#!/bin/sh\necho born >> {tmp_path}/lives\nkill -s {number} $$\n")
    engine.chmod(0o755)
    overrides = {"engine": {"binary": str(engine)}, "supervisor": {"start_retries": retries}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance:
        assert appliance.wait_exit() == 69
        assert f"terminated by SIG{number}" in appliance.stderr
        assert "argv=[" in appliance.stdout  # nobody's terminal: everything is there for machines
        assert "configuration | settings={" in appliance.stdout
    lives = len((tmp_path / "lives").read_text().splitlines())
    # A restart cannot help against SIGILL; supervisord may be quicker than the listener once, but not five times.
    assert lives <= retries if number == "ILL" else lives > retries


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
        assert done.stdout.startswith(f"ready: http://127.0.0.1:{appliance.gateway_port}, tiny, serving")
        for name in ("engine", "gateway", "health"):
            assert re.search(rf"^{name} +(?:running|starting) +\d+ ", done.stdout, re.MULTILINE)
        found = appliance.status()
        assert found["state"] == "ready"
        assert found["failure"] is None
        assert {item["name"] for item in found["programs"]} == {"engine", "gateway", "health", "listener"}
        assert appliance.stop() == 0
        assert appliance.cli("status", "--run-dir", str(appliance.run_dir)).returncode == 69


def test_a_model_that_cannot_chat_says_so_everywhere(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "base.gguf", chat_template="")
    said = "the model has no chat template: chat responses will be poor"
    with running(tmp_path, model=model) as appliance:
        for command in ("check", "plan"):
            done = appliance.cli(command, str(appliance.config))
            assert done.returncode == 0
            assert "warning[no-chat-template]: model.chat_template: " in done.stderr
            assert said in done.stderr
        assert appliance.cli("check", "--strict", str(appliance.config)).returncode == 78
        appliance.wait_ready()
        told = appliance.health()
        assert told is not None
        (warning,) = told["warnings"]
        assert (warning["code"], told["state"]) == ("no-chat-template", "ready")
        assert said in warning["message"]
        assert "set model.chat_template" in warning["hint"]
        assert str(tmp_path) not in json.dumps(told)
        assert appliance.status()["warnings"] == [warning]
        assert "warning[no-chat-template]: " in appliance.cli("status", "--run-dir", str(appliance.run_dir)).stdout
        assert appliance.stop() == 0
        assert appliance.stdout.count(f"| WARNING | engine | model.chat_template: not set, and {said}") == 1


def test_a_model_that_can_chat_says_nothing(tmp_path: Path, tiny_model: Path) -> None:
    overrides = {"engine": {"task": "embed", "pooling": "mean"}, "gateway": {"routes": ["embeddings"]}}
    base = write_tiny_model(tmp_path / "base.gguf", chat_template="")
    for number, (model, more) in enumerate(((tiny_model, {}), (base, overrides))):
        with running(tmp_path / str(number), model=model, overrides=more) as appliance:
            appliance.wait_ready()
            told = appliance.health()
            assert told is not None
            assert told["warnings"] == []


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
