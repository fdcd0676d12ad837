from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.engine import variant_memory
from llama_gguf.engine.variant_choice import HostCpu, VariantSteps, choose, this_machine, withdraw
from llama_gguf.engine.variant_memory import CrashedVariant
from llama_gguf.errors import ExitCode, LaunchError
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import Settings, locate
from support.model_box import settings_for
from support.variant_engine import SAPPHIRE_RAPIDS, VariantEngine

ALL = ("sapphirerapids", "zen4", "haswell", "x64")
MACHINE = HostCpu("x86_64", f"model name: Xeon\nflags: {SAPPHIRE_RAPIDS}\n")
OLD = HostCpu("x86_64", "model name: Old\nflags: sse4_2 avx f16c fma avx2 bmi2\n")


@pytest.fixture
def engine(tmp_path: Path) -> VariantEngine:
    return VariantEngine.make(tmp_path / "engine", ALL)


def settings(root: Path, variant: str = "auto") -> Settings:
    return settings_for(root, {"path": "/m"}, engine={"cpu_variant": variant})


def snapshot_for(root: Path, **engine: Any) -> Snapshot:
    made = settings_for(root, {"path": "/m"}, engine=engine)
    snapshot = Snapshot(settings=made, locations=locate(made, {}))
    snapshot.locations.run.root.mkdir(parents=True, exist_ok=True)
    return snapshot


def chosen(
    root: Path, engine: VariantEngine, variant: str = "auto", machine: HostCpu = MACHINE, **more: Any
) -> EngineVariant | None:
    return choose(settings(root, variant), engine.binary, machine, root / "memory.json", **more)


def test_auto_takes_the_best_and_knows_what_is_below(tmp_path: Path, engine: VariantEngine) -> None:
    found = chosen(tmp_path, engine)
    assert found is not None
    assert (found.variant, found.lower, found.rejected) == ("sapphirerapids", ("zen4", "haswell", "x64"), ())
    assert not found.pinned
    old = chosen(tmp_path, engine, machine=OLD)
    assert old is not None
    assert (old.variant, old.lower) == ("haswell", ("x64",))
    assert old.cpu != found.cpu
    assert not (tmp_path / "memory.json").exists()


def test_auto_leaves_out_what_crashed_here_with_this_library(tmp_path: Path, engine: VariantEngine) -> None:
    best = chosen(tmp_path, engine)
    assert best is not None
    memory = tmp_path / "memory.json"
    variant_memory.add(memory, [CrashedVariant("another cpu", "sapphirerapids", best.sha256)])
    variant_memory.add(memory, [CrashedVariant(best.cpu, "sapphirerapids", "another library")])
    variant_memory.add(memory, [CrashedVariant(best.cpu, "of-another-version", "x")])
    assert chosen(tmp_path, engine) == best
    variant_memory.add(memory, [CrashedVariant(best.cpu, "sapphirerapids", best.sha256)])
    after = chosen(tmp_path, engine)
    assert after is not None
    assert (after.variant, after.lower) == ("zen4", ("haswell", "x64"))
    assert after.rejected == (Rejected("sapphirerapids"),)
    again = chosen(tmp_path, engine, earlier=(Rejected("zen4", after.sha256, 70),))
    assert again is not None
    assert (again.variant, again.rejected_names) == ("haswell", ["sapphirerapids", "zen4"])
    assert again.rejected_now == (Rejected("zen4", after.sha256, 70),)


def test_one_is_tried_even_if_all_that_are_left_crashed_once(tmp_path: Path, engine: VariantEngine) -> None:
    earlier = tuple(Rejected(name, "", 70) for name in ALL)
    found = chosen(tmp_path, engine, earlier=earlier)
    assert found is not None
    assert (found.variant, found.lower) == ("x64", ())
    assert found.rejected_names == ["sapphirerapids", "zen4", "haswell"]


def test_llama_server_makes_its_own_choice_where_it_cannot_be_told(tmp_path: Path, engine: VariantEngine) -> None:
    assert chosen(tmp_path, engine, machine=HostCpu("x86_64", "")) is None
    assert chosen(tmp_path, engine, machine=HostCpu("riscv64", MACHINE.cpuinfo)) is None
    assert chosen(tmp_path, engine, machine=HostCpu("aarch64", "Features: fp asimd\n")) is None
    (engine.folder / "lib" / "libggml.so").write_bytes(b"without the edit")
    assert chosen(tmp_path, engine) is None
    native = VariantEngine.make(tmp_path / "native", ())
    assert chosen(tmp_path, native) is None


def test_a_pin_is_heeded_whatever_crashed(tmp_path: Path, engine: VariantEngine) -> None:
    pinned = chosen(tmp_path, engine, "zen4")
    assert pinned is not None
    assert (pinned.variant, pinned.pinned, pinned.lower, pinned.can_step_down) == ("zen4", True, (), False)
    variant_memory.add(tmp_path / "memory.json", [CrashedVariant(pinned.cpu, "zen4", pinned.sha256)])
    assert chosen(tmp_path, engine, "zen4", earlier=(Rejected("zen4", "", 70),)) == pinned
    assert chosen(tmp_path, engine, "zen4", machine=HostCpu("x86_64", "")) is not None  # nothing is known against it


@pytest.mark.parametrize(
    ("variant", "machine", "words"),
    [
        ("icelake", MACHINE, ("has no such variant", "this CPU supports: sapphirerapids, zen4, haswell, x64")),
        ("armv8.2_1", MACHINE, ("has no such variant", "set engine.cpu_variant to auto")),
        ("zen4", OLD, ("this CPU lacks avx512_bf16, avx512_vnni, avx512bw", "this CPU supports: haswell, x64")),
    ],
)
def test_a_pin_that_cannot_run_is_refused(
    tmp_path: Path, engine: VariantEngine, variant: str, machine: HostCpu, words: tuple[str, str]
) -> None:
    with pytest.raises(LaunchError, match=f"engine.cpu_variant is {variant}, but .*{words[0]}") as caught:
        chosen(tmp_path, engine, variant, machine)
    assert words[1] in caught.value.hint
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_pin_is_refused_where_the_engine_cannot_be_told(tmp_path: Path, engine: VariantEngine) -> None:
    native = VariantEngine.make(tmp_path / "native", ())
    with pytest.raises(LaunchError, match="it has no variants") as caught:
        chosen(tmp_path, native, "zen4")
    assert caught.value.exit_code == ExitCode.CONFIG
    (engine.folder / "lib" / "libggml.so").write_bytes(b"without the edit")
    with pytest.raises(LaunchError, match="does not support GGML_CPU_VARIANT") as caught:
        chosen(tmp_path, engine, "zen4")
    assert "auto" in caught.value.hint


def ended(snapshot: Snapshot, pid: int, how: str) -> None:
    with snapshot.locations.run.supervisord_log.open("a") as file:
        file.write(f"INFO spawned: 'engine' with pid {pid}\nWARN exited: engine ({how}; not expected)\n")


def test_the_steps_of_engines_one_after_the_other(
    tmp_path: Path, engine: VariantEngine, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = snapshot_for(tmp_path)
    run = snapshot.locations.run
    seen = []
    for how in ("SIGILL", "SIGSEGV", "SIGILL", "SIGILL", "SIGILL"):
        steps = VariantSteps(snapshot, MACHINE)
        steps.apply_exits()
        assert json.loads(run.engine_variant.read_text())["pid"] == 0
        seen.append(steps.choose(engine.binary))
        assert json.loads(run.engine_variant.read_text())["pid"] == os.getpid()
        ended(snapshot, os.getpid(), f"terminated by {how}")
    assert seen == ["sapphirerapids", "zen4", "zen4", "haswell", "x64"]
    assert caplog.text.count("a lower variant is used from now on") == 3
    remembered = variant_memory.read(snapshot.locations.cpu_variants_file)
    assert [entry.variant for entry in remembered] == ["sapphirerapids", "zen4", "haswell"]
    withdraw(snapshot)  # x64 crashed too: it were not the variants
    assert variant_memory.read(snapshot.locations.cpu_variants_file) == ()


def test_withdrawing_leaves_what_earlier_runs_learnt(tmp_path: Path, engine: VariantEngine) -> None:
    snapshot = snapshot_for(tmp_path)
    withdraw(snapshot)
    steps = VariantSteps(snapshot, MACHINE)
    steps.apply_exits()
    steps.choose(engine.binary)
    assert steps.step_down()
    snapshot.locations.run.engine_variant.unlink()  # another run
    later = VariantSteps(snapshot, MACHINE)
    later.apply_exits()
    assert later.choose(engine.binary) == "zen4"
    assert later.step_down()
    assert later.choose(engine.binary) == "haswell"
    withdraw(snapshot)
    remembered = variant_memory.read(snapshot.locations.cpu_variants_file)
    assert [entry.variant for entry in remembered] == ["sapphirerapids"]


def test_a_question_that_crashes_steps_down_to_the_last_and_no_further(tmp_path: Path, engine: VariantEngine) -> None:
    steps = VariantSteps(snapshot_for(tmp_path), MACHINE)
    steps.apply_exits()
    seen = [steps.choose(engine.binary)]
    while steps.step_down():
        seen.append(steps.choose(engine.binary))
    assert seen == list(ALL)


def test_a_process_that_ends_before_its_choice_is_not_taken_for_the_one_before(
    tmp_path: Path, engine: VariantEngine
) -> None:
    snapshot = snapshot_for(tmp_path)
    first = VariantSteps(snapshot, MACHINE)
    first.apply_exits()
    first.choose(engine.binary)
    ended(snapshot, os.getpid(), "exit status 1")
    second = VariantSteps(snapshot, MACHINE)
    second.apply_exits()
    ended(snapshot, os.getpid(), "terminated by SIGILL")  # the same pid again, and no variant was in use
    third = VariantSteps(snapshot, MACHINE)
    third.apply_exits()
    assert third.choose(engine.binary) == "sapphirerapids"


def test_a_data_directory_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, engine: VariantEngine, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = snapshot_for(tmp_path)
    snapshot.locations.cpu_variants_file.mkdir(parents=True)
    steps = VariantSteps(snapshot, MACHINE)
    steps.apply_exits()
    steps.choose(engine.binary)
    ended(snapshot, os.getpid(), "terminated by SIGILL")
    for _ in range(2):
        later = VariantSteps(snapshot, MACHINE)
        later.apply_exits()
        assert later.choose(engine.binary) == "zen4"
        ended(snapshot, os.getpid(), "exit status 1")
    assert caplog.text.count("the crash cannot be stored beyond this run") == 1


def test_without_a_choice_nothing_is_shown(tmp_path: Path) -> None:
    snapshot = snapshot_for(tmp_path)
    steps = VariantSteps(snapshot, MACHINE)
    steps.apply_exits()
    assert steps.choose(VariantEngine.make(tmp_path / "native", ()).binary) is None
    assert not steps.step_down()
    record = engine_variant.read(snapshot.locations.run.engine_variant)
    assert engine_variant.summary(record) is None


def test_this_machine_says_what_it_is() -> None:
    found = this_machine()
    assert found.name == os.uname().machine
    assert found.cpuinfo
