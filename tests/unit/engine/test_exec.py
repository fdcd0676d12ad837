"""From a snapshot to the call that becomes llama-server; the call itself is a recorder here, real in e2e."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llama_gguf.engine import exec as engine_exec
from llama_gguf.errors import ConfigError, ExitCode, LaunchError, ModelError
from llama_gguf.rundir import engine_reduction, engine_values
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.engine_reduction import EngineReduction
from llama_gguf.rundir.engine_values import ChosenValues
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import locate, parse
from support.model_box import settings_for
from support.tiny_model import write_tiny_model


class Became(Exception):  # noqa: N818 - it stands for the end of this program, not an error
    """Raised in place of becoming another program."""

    def __init__(self, program: Path, argv: list[str], env: dict[str, str]) -> None:
        super().__init__(program)
        self.program, self.argv, self.env = program, argv, env


def become(program: Path, argv: list[str], env: dict[str, str]) -> NoReturn:
    raise Became(program, argv, env)


def snapshot_for(root: Path, model: Path | str, **engine: Any) -> Snapshot:
    settings = settings_for(root, {"path": str(model)}, engine=engine)
    snapshot = Snapshot(settings=settings, locations=locate(settings, {}))
    snapshot.locations.run.root.mkdir(parents=True, exist_ok=True)
    snapshot.locations.run.engine_key.write_text("key\n")
    return snapshot


def run(snapshot: Snapshot, env: dict[str, str] | None = None) -> Became:
    with pytest.raises(Became) as caught:
        engine_exec.run(snapshot, env or {}, execve=become)
    return caught.value


def test_it_becomes_llama_server(tmp_path: Path, tiny_model: Path, engine_binary: Path) -> None:
    snapshot = snapshot_for(tmp_path, tiny_model, context_per_slot=1024)
    run_dir = snapshot.locations.run
    run_dir.engine_socket.write_text("left behind by a kill -9")
    became = run(snapshot, {"PATH": "/bin", "HF_TOKEN": "secret", "LLAMA_ARG_PORT": "1"})
    assert became.program == engine_binary
    assert became.argv[0] == str(engine_binary)
    assert became.argv[became.argv.index("--model") + 1] == str(tiny_model)
    assert became.argv[became.argv.index("--fit") + 1] == "off"  # a build without GPU backends
    assert became.env == {"PATH": "/bin", "XDG_CONFIG_HOME": str(run_dir.root), "NO_COLOR": "1"}
    assert not run_dir.engine_socket.exists()
    state = json.loads(run_dir.engine_phase.read_text())
    assert (state["phase"], state["detail"]) == ("starting", str(tiny_model))
    assert state["warnings"] == []


def warned(snapshot: Snapshot) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(snapshot.locations.run.engine_phase.read_text())["warnings"]
    return found


def test_what_the_models_file_shows_is_warned_of(
    tmp_path: Path, engine_binary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine_binary.exists()
    model = write_tiny_model(tmp_path / "base.gguf", context=512, chat_template="")
    snapshot = snapshot_for(tmp_path, model, context_per_slot=1024)
    run(snapshot)
    assert [item["code"] for item in warned(snapshot)] == ["context-over-training", "no-chat-template"]
    assert "set model.chat_template" in warned(snapshot)[1]["hint"]
    assert str(tmp_path) not in json.dumps(warned(snapshot))  # strangers read it
    records = [record for record in caplog.records if "the model has no chat template" in record.getMessage()]
    assert [record.levelname for record in records] == ["WARNING"]
    assert records[0].__dict__["fields"]["code"] == "no-chat-template"


def test_a_template_of_the_operators_is_no_news(tmp_path: Path, engine_binary: Path) -> None:
    assert engine_binary.exists()
    model = write_tiny_model(tmp_path / "base.gguf", chat_template="")
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    chosen: dict[str, object] = {"path": str(model), "chat_template": str(template)}
    settings = settings_for(tmp_path, chosen, engine={"context_per_slot": 1024})
    plain = snapshot_for(tmp_path, model)
    snapshot = Snapshot(settings=settings, locations=plain.locations)
    run(snapshot)
    assert warned(snapshot) == []


@pytest.mark.parametrize(
    ("mode", "limit", "capabilities", "told"),
    [
        ("mlock", 4096, "0000000000000000", True),
        ("mmap+mlock", 4096, "0000000000000000", True),
        ("mmap", 4096, "0000000000000000", False),
        ("auto", 4096, "0000000000000000", False),
        ("mlock", 8192, "0000000000000000", False),
        ("mlock", resource.RLIM_INFINITY, "0000000000000000", False),
        ("mlock", 4096, "000001ffffffffff", False),  # root's, of a whole machine
        ("mlock", 4096, "00000000a80425fb", True),  # root's, of a container
    ],
)
def test_weights_that_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, limit: int, capabilities: str, *, told: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    settings = settings_for(tmp_path, {"path": "/m.gguf"}, engine={"load_mode": mode})
    notices = engine_exec.check_lock(settings, 8192, f"Name:\tx\nCapEff:\t{capabilities}\n")
    assert [notice.code for notice in notices] == (["memory-not-locked"] if told else [])


@pytest.mark.engine
def test_mtp_drafts_of_a_model_without_mtp_layers(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="the model's file has none") as caught:
        engine_exec.run(snapshot_for(tmp_path, tiny_model, speculative={"types": ["draft-mtp"]}), {}, execve=become)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert "ngram-simple" in caught.value.hint


@pytest.mark.engine
def test_a_device_that_this_build_cannot_have(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(LaunchError, match="there is no CUDA7: llama-server finds none") as caught:
        engine_exec.run(snapshot_for(tmp_path, tiny_model, devices=["CUDA7"]), {}, execve=become)
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"devices": ["CUDA1", "CUDA0"], "tensor_split": [1, 3]}, None),
        ({"tensor_split": [1, 3]}, None),
        ({"main_gpu": 1, "split_mode": "none"}, None),
        ({"devices": ["CUDA0", "cuda1"]}, "engine.devices: there is no cuda1: llama-server finds CUDA0, CUDA1"),
        ({"tensor_split": [1, 1, 1]}, "engine.tensor_split: 3 shares, but llama-server finds CUDA0, CUDA1"),
        ({"main_gpu": 2, "split_mode": "none"}, "engine.main_gpu: there is no number 2"),
    ],
)
def test_devices_of_a_machine_with_two(tmp_path: Path, engine: dict[str, Any], message: str | None) -> None:
    settings = settings_for(tmp_path, {"path": "/m.gguf"}, engine=engine)
    if message is None:
        engine_exec.check_devices(settings, ["CUDA0", "CUDA1"])
        return
    with pytest.raises(LaunchError, match=message):
        engine_exec.check_devices(settings, ["CUDA0", "CUDA1"])


@pytest.mark.engine
def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        engine_exec.run(snapshot_for(tmp_path, "/nowhere/x.gguf"), {}, execve=become)
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.engine
def test_one_of_several_models_that_is_not_there_is_named_by_its_place(tmp_path: Path) -> None:
    paths = {"data_dir": str(tmp_path), "run_dir": str(tmp_path / "run")}
    settings = parse({"models": {"chat": {"path": "/nowhere/x.gguf"}, "b": {"path": "/b.gguf"}}, "paths": paths})
    snapshot = Snapshot(settings=settings, locations=locate(settings, {})).of_engine("engine-chat")
    snapshot.locations.run.root.mkdir()
    snapshot.locations.run.engine_key.write_text("key\n")
    with pytest.raises(ModelError, match=r"^models\.chat\.path: /nowhere/x\.gguf does not exist"):
        engine_exec.run(snapshot, {}, execve=become)


@pytest.mark.engine
def test_a_socket_path_that_is_too_long(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes") as caught:
        engine_exec.run(snapshot_for(tmp_path / ("x" * 100), tiny_model), {}, execve=become)
    assert "paths.run_dir" in caught.value.hint


@pytest.mark.engine
def test_no_key_file(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = snapshot_for(tmp_path, tiny_model)
    snapshot.locations.run.engine_key.unlink()
    with pytest.raises(LaunchError, match="key file is missing"):
        engine_exec.run(snapshot, {}, execve=become)


def test_a_config_file_of_llama_cpps_own(tmp_path: Path, tiny_model: Path) -> None:
    config = tmp_path / "config.ini"
    engine_exec.check_surroundings(snapshot_for(tmp_path, tiny_model), config)
    config.write_text("tools = all\n")
    with pytest.raises(LaunchError, match="bypassing our configuration") as caught:
        engine_exec.check_surroundings(snapshot_for(tmp_path, tiny_model), config)
    assert caught.value.exit_code == ExitCode.CONFIG
    engine_exec.check_surroundings(snapshot_for(tmp_path, tiny_model, allow_unsafe_args=True), config)


@pytest.mark.engine
@pytest.mark.parametrize(("gpu_layers", "loud"), [("all", True), (12, True), ("auto", False), (0, False)])
def test_a_missing_gpu_is_said_loudly(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture, gpu_layers: str | int, *, loud: bool
) -> None:
    snapshot = snapshot_for(tmp_path, tiny_model, gpu_layers=gpu_layers, context_per_slot=1024)
    run(snapshot)
    assert ("no GPU is usable" in caplog.text) is loud
    assert [item["code"] for item in warned(snapshot)] == (["no-gpu"] if loud else [])


def server_built_for_gpus(folder: Path, devices: str) -> Path:
    """A llama-server with a CUDA backend beside it that lists `devices`."""
    binary = folder / "bin" / "llama-server"
    binary.parent.mkdir()
    (binary.parent / "libggml-cuda.so").touch()
    binary.write_text(f"#!/bin/sh\necho '{devices}'\n")
    binary.chmod(0o755)
    return binary


@pytest.mark.parametrize("gpu_layers", ["all", 12])
def test_a_build_for_gpus_refuses_to_run_on_the_cpu(tmp_path: Path, tiny_model: Path, gpu_layers: str | int) -> None:
    binary = server_built_for_gpus(tmp_path, "Available devices:")
    with pytest.raises(LaunchError, match="no GPU is visible: the NVIDIA driver") as caught:
        run(snapshot_for(tmp_path, tiny_model, gpu_layers=gpu_layers, binary=str(binary)), {"PATH": "/bin"})
    assert caught.value.exit_code == ExitCode.CONFIG


def test_auto_warns_and_runs(tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    binary = server_built_for_gpus(tmp_path, "Available devices:")
    snapshot = snapshot_for(tmp_path, tiny_model, gpu_layers="auto", binary=str(binary), context_per_slot=1024)
    run(snapshot, {"PATH": "/bin"})
    assert "no GPU is visible" in caplog.text
    assert [item["code"] for item in warned(snapshot)] == ["no-gpu"]


def test_a_gpu_that_is_there_is_no_news(tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    binary = tmp_path / "bin" / "llama-server"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho '  CUDA0: NVIDIA X (100 MiB, 90 MiB free)'\n")
    binary.chmod(0o755)
    became = run(snapshot_for(tmp_path, tiny_model, gpu_layers="all", binary=str(binary)), {"PATH": "/bin"})
    assert "no GPU is usable" not in caplog.text
    assert became.argv[became.argv.index("--fit") + 1] == "on"


def test_what_is_auto_becomes_numbers_and_nothing_else_changes(tmp_path: Path, engine_binary: Path) -> None:
    assert engine_binary.exists()
    model = write_tiny_model(tmp_path / "long.gguf", context=2048)
    snapshot = snapshot_for(tmp_path, model, context_per_slot="auto", slots=2, batch_size="auto")
    snapshots.write(snapshot, snapshot.locations.run.snapshot)
    became = run(snapshot)
    assert [item["code"] for item in warned(snapshot)] == ["engine-auto"]
    plain = run(snapshot_for(tmp_path, model, context_per_slot=2048, slots=2, batch_size=2048))
    assert became.argv == plain.argv
    values = json.loads(snapshot.locations.run.engine_auto.read_text())["values"]
    assert values == {"context_per_slot": 2048, "batch_size": 2048}


def test_after_running_out_of_memory_what_was_chosen_is_kept(tmp_path: Path, engine_binary: Path) -> None:
    """Chosen anew it would be too much again."""
    assert engine_binary.exists()
    model = write_tiny_model(tmp_path / "long.gguf", context=8192)
    snapshot = snapshot_for(tmp_path, model, context_per_slot="auto", slots="auto", shrink={"steps": ["context"]})
    run_dir = snapshot.locations.run
    snapshots.write(snapshot, run_dir.snapshot)
    engine_values.write(ChosenValues({"context_per_slot": 6144, "slots": 3}), run_dir.engine_auto)
    engine_reduction.write(EngineReduction({"context_per_slot": 3072}, (1,), 0), run_dir.engine_reduction)
    argv = run(snapshot).argv
    assert argv[argv.index("--ctx-size") + 1] == str(3 * 3072)
    assert engine_values.in_force(run_dir) == {"context_per_slot": 3072, "slots": 3}
    assert [item["code"] for item in warned(snapshot)] == ["engine-reduced"]
