"""Variants of the engine's CPU code that crash: real supervisord and programs, a stand-in engine that kills itself."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support.appliance import Appliance, running
from support.variant_engine import VariantEngine

ALL = ("sapphirerapids", "zen4", "icelake", "skylakex", "haswell", "sse42", "x64")
STEPPED = "a lower variant is used from now on"
SECONDS = 60.0  # to become ready with so many crashes on the way, on a machine that others use too


def started(folder: Path, model: Path, made: VariantEngine, **settings: Any) -> AbstractContextManager[Appliance]:
    """An appliance with this engine."""
    overrides: dict[str, Any] = {**settings, "engine": {"binary": str(made.binary), **settings.get("engine", {})}}
    return running(folder, model=model, overrides=overrides, env=made.env())


def wait_failed(appliance: Appliance) -> dict[str, Any]:
    """Wait for the end of `up`; return why."""
    assert appliance.wait_exit(SECONDS) != 0
    found: dict[str, Any] = json.loads((appliance.run_dir / "failure.json").read_text())
    return found


def memory(folder: Path) -> list[dict[str, str]]:
    """What is remembered of crashes beyond the life of the appliance."""
    path = folder / "data" / "engine-cpu-variants.json"
    if not path.exists():
        return []
    found: list[dict[str, str]] = json.loads(path.read_text())["crashed"]
    return found


def all_crash(but: str = "", by: str = "SIGILL") -> Mapping[str, str]:
    return {variant: by for variant in ALL if variant != but}


def test_one_step_heals_and_is_said_everywhere(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"sapphirerapids": "SIGILL"})
    with started(tmp_path, tiny_model, engine) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == ["sapphirerapids", "zen4"]
        shown = {"name": "zen4", "pinned": False, "rejected": ["sapphirerapids"]}
        assert appliance.status()["cpu_variant"] == shown
        text = appliance.cli("status", "--run-dir", str(appliance.run_dir)).stdout
        assert "CPU variant: zen4, crashed on this machine and not used: sapphirerapids" in text
        health = appliance.health()
        assert health is not None
        assert health["cpu_variant"] == shown
        appliance.wait_for(lambda: appliance.get("/health").json()["engine"]["cpu_variant"] == shown, 10, "gateway")
        metrics = appliance.get("/metrics").body.decode()
        assert re.search(
            r'^llama_gguf_engine_cpu_variant\{model="tiny",variant="zen4",.*\} 1.0$', metrics, re.MULTILINE
        )
        assert re.search(r"^llama_gguf_engine_cpu_variants_rejected\{.*\} 1.0$", metrics, re.MULTILINE)
        report = appliance.cli("diagnostics", "--run-dir", str(appliance.run_dir), "--json").stdout
        assert json.loads(report)["status"]["cpu_variant"] == shown
        assert appliance.stop() == 0
        assert appliance.stdout.count(STEPPED) == 1
        assert re.search(rf"WARNING.*{STEPPED}.*crashed=sapphirerapids variant=zen4", appliance.stdout)
    (entry,) = memory(tmp_path)
    assert entry["variant"] == "sapphirerapids"
    assert stat.S_IMODE((tmp_path / "data" / "engine-cpu-variants.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("retries", [0, 3])
def test_six_steps_in_a_row_past_every_count_of_restarts(tmp_path: Path, tiny_model: Path, retries: int) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes=all_crash(but="x64"))
    rules = {"start_retries": retries, "max_restarts": 0}
    with started(tmp_path, tiny_model, engine, supervisor=rules) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == list(ALL)
        assert appliance.stop() == 0
        assert appliance.stdout.count(STEPPED) == 6  # all of the log is there now


def test_crashes_after_the_first_second_heal_too(tmp_path: Path, tiny_model: Path) -> None:
    """supervisord calls these by another name, restarts at once and does not count them: the listener would."""
    crashes = {"sapphirerapids": "SIGILL", "zen4": "SIGILL", "icelake": "SIGILL"}
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes=crashes, after=1.5)
    with started(tmp_path, tiny_model, engine, supervisor={"start_retries": 0, "max_restarts": 0}) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == ["sapphirerapids", "zen4", "icelake", "skylakex"]
        (shown,) = [program for program in appliance.status()["programs"] if program["name"] == "engine"]
        assert shown["restarts"] == 3  # told, but not counted against it
        assert appliance.stop() == 0


def test_only_when_the_lowest_fails_it_is_a_failure_and_no_variants_fault(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ("haswell", "sse42", "x64"), crashes=all_crash())
    with started(tmp_path, tiny_model, engine) as appliance:
        failure = wait_failed(appliance)
        assert engine.starts()[:3] == ["haswell", "sse42", "x64"]
        assert failure["signal"] == "SIGILL"
        assert "CPU variants tried: haswell, sse42, x64" in failure["cause"]
        assert "CPU variants tried: haswell, sse42, x64" in appliance.stderr
    assert memory(tmp_path) == []  # whatever it was, it were not the variants: next time the best is tried again


def test_a_pinned_variant_is_not_healed(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"icelake": "SIGILL"})
    with started(tmp_path, tiny_model, engine, engine={"cpu_variant": "icelake"}) as appliance:
        failure = wait_failed(appliance)
        assert set(engine.starts()) == {"icelake"}
        assert "engine.cpu_variant" in failure["fix"]
        assert "icelake" in failure["cause"]
    assert memory(tmp_path) == []


def test_a_pinned_variant_runs_whatever_the_environment_says(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL)
    overrides = {"engine": {"binary": str(engine.binary), "cpu_variant": "haswell"}}
    env = {**engine.env(), "GGML_CPU_VARIANT": "zen4"}
    with running(tmp_path, model=tiny_model, overrides=overrides, env=env) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == ["haswell"]
        assert appliance.status()["cpu_variant"] == {"name": "haswell", "pinned": True, "rejected": []}
        assert appliance.stop() == 0


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("alderlake", "has no such variant"),
        ("armv8.2_1", "has no such variant"),
        ("zen4", "this CPU lacks avx512_bf16"),
    ],
)
def test_a_pinned_variant_that_cannot_run_is_refused(
    tmp_path: Path, tiny_model: Path, variant: str, words: str
) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL)
    engine.run_on("Some older CPU", "sse4_2 fma f16c avx avx2 bmi2")
    with started(tmp_path, tiny_model, engine, engine={"cpu_variant": variant}) as appliance:
        assert appliance.wait_exit(SECONDS) == 78
        assert words in appliance.stderr
        assert "this CPU supports: haswell, sse42, x64" in appliance.stderr
        assert engine.starts() == []


def test_the_choice_outlives_the_appliance_and_holds_for_this_cpu_and_library_only(
    tmp_path: Path, tiny_model: Path
) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"sapphirerapids": "SIGILL"})

    def starts_of_a_new_run() -> list[str]:
        before = len(engine.starts())
        with started(tmp_path, tiny_model, engine) as appliance:
            appliance.wait_ready(SECONDS)
            assert appliance.stop() == 0
            assert appliance.stdout.count(STEPPED) == len(engine.starts()) - before - 1
        return engine.starts()[before:]

    assert starts_of_a_new_run() == ["sapphirerapids", "zen4"]
    assert starts_of_a_new_run() == ["zen4"]
    engine.run_on("Intel(R) Xeon(R) Gold 6430", (engine.folder / "cpuinfo").read_text().rpartition(":")[2])
    assert starts_of_a_new_run() == ["sapphirerapids", "zen4"]
    engine.library("sapphirerapids").write_text("the code of a newer image")
    engine.crash({})
    assert starts_of_a_new_run() == ["sapphirerapids"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_other_ends_reject_nothing(tmp_path: Path, tiny_model: Path, number: signal.Signals) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL)
    with started(tmp_path, tiny_model, engine) as appliance:
        appliance.wait_ready(SECONDS)
        appliance.kill("engine", number)
        appliance.wait_for(lambda: len(engine.starts()) == 2, 20, "a restart")
        assert engine.starts() == ["sapphirerapids"] * 2
        assert appliance.stop() == 0
        assert STEPPED not in appliance.stdout
    assert memory(tmp_path) == []


def test_an_illegal_instruction_of_another_program_rejects_nothing(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL)
    with started(tmp_path, tiny_model, engine) as appliance:
        appliance.wait_ready(SECONDS)
        gateway = appliance.kill("gateway", signal.SIGILL)
        appliance.wait_for(lambda: appliance.pid("gateway") not in (0, gateway), 20, "a new gateway")
        appliance.kill("engine", signal.SIGKILL)
        appliance.wait_for(lambda: len(engine.starts()) == 2, 20, "a restart")
        assert engine.starts() == ["sapphirerapids"] * 2
        assert appliance.stop() == 0


def test_a_crash_while_asked_for_gpus_heals_within_one_start(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"sapphirerapids": "SIGILL", "zen4": "SIGILL"})
    engine.binary.with_name("libggml-cuda.so").touch()
    with started(tmp_path, tiny_model, engine, engine={"gpu_layers": "all"}) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == ["icelake"]
        assert appliance.stop() == 0
        assert appliance.stdout.count(STEPPED) == 2
    assert [entry["variant"] for entry in memory(tmp_path)] == ["sapphirerapids", "zen4"]


@pytest.mark.parametrize("kind", ["damaged", "huge", "link", "pipe", "directory"])
def test_a_hostile_file_of_crashes_is_ignored(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"sapphirerapids": "SIGILL"})
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path = tmp_path / "data" / "engine-cpu-variants.json"
    path.parent.mkdir()
    match kind:
        case "damaged":
            path.write_text('{"crashed": [{"cpu": "' + "[" * 100_000)
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 33)
        case "link":
            path.symlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with started(tmp_path, tiny_model, engine) as appliance:
        appliance.wait_ready(SECONDS)
        assert engine.starts() == ["sapphirerapids", "zen4"]
        assert appliance.stop() == 0
        # Now that it has ended, all of its log is there.
        assert "is invalid and is ignored" in appliance.stdout
        assert ("cannot be stored beyond this run" in appliance.stdout) is (kind == "directory")
        assert "Traceback" not in appliance.stdout
    assert victim.read_text() == "untouched"
    if kind != "directory":
        assert [entry["variant"] for entry in memory(tmp_path)] == ["sapphirerapids"]


def test_an_engine_without_the_edit_runs_as_ever(tmp_path: Path, tiny_model: Path) -> None:
    engine = VariantEngine.make(tmp_path / "engine", ALL, crashes={"-": "SIGILL"})
    (engine.folder / "lib" / "libggml.so").write_bytes(b"\x7fELF of another build\0")
    with started(tmp_path, tiny_model, engine) as appliance:
        failure = wait_failed(appliance)
        assert set(engine.starts()) == {"-"}
        assert "variant" not in failure["cause"]
        assert STEPPED not in appliance.stdout
