"""What an engine's program chooses at its start: for the budget, for what is free, beside the other models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.engine.auto.choose import choose, notice_of, resolve
from llama_gguf.engine.binary import Device
from llama_gguf.errors import ModelError
from llama_gguf.models.memory.resolve_auto import Resolved
from llama_gguf.models.planning.weights import header_reader
from llama_gguf.rundir import engine_values
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.engine_values import ChosenValues
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import locate, parse
from support.sparse_model import Dimensions, write_sparse_model
from support.tiny_model import write_tiny_model

GIB = 1 << 30
AUTO = {"context_per_slot": "auto", "slots": 1, "gpu_layers": "all"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", Dimensions())


def snapshot_of(root: Path, tree: dict[str, Any]) -> Snapshot:
    settings = parse({"paths": {"data_dir": str(root), "run_dir": str(root / "run")}, **tree})
    return Snapshot(settings, locate(settings, {}))


def gpu(number: int, total: float, free: float | None = None) -> Device:
    left = total if free is None else free
    return Device(f"CUDA{number}", "card", int(total * GIB), int(left * GIB))


def chosen(
    whole: Snapshot, program: str, devices: Sequence[Device], ram: float | None = None, free: float | None = None
) -> Resolved:
    totals = (sum(device.total_bytes for device in devices), None if ram is None else int(ram * GIB))
    free_host = None if free is None else int(free * GIB)
    return resolve(whole, program, devices, header_reader({}), {}, totals=totals, free_host=free_host)


def context(found: Resolved) -> int:
    assert isinstance(found.engine.context_per_slot, int)
    return found.engine.context_per_slot


def test_one_model_has_what_is_free_on_the_card(tmp_path: Path, file: Path) -> None:
    whole = snapshot_of(tmp_path, {"model": {"path": str(file)}, "engine": AUTO})
    alone = context(chosen(whole, "engine", [gpu(0, 24)]))
    shared = context(chosen(whole, "engine", [gpu(0, 24, 12)]))
    assert 2048 < shared < alone
    assert shared == context(chosen(whole, "engine", [gpu(0, 12)]))


def test_without_a_card_it_has_what_is_free_of_main_memory(tmp_path: Path, file: Path) -> None:
    whole = snapshot_of(tmp_path, {"model": {"path": str(file)}, "engine": {**AUTO, "prompt_cache_mib": 0}})
    assert context(chosen(whole, "engine", [], ram=64, free=10)) == context(chosen(whole, "engine", [], ram=10))
    assert context(chosen(whole, "engine", [], ram=64)) > context(chosen(whole, "engine", [], ram=10))


def test_only_the_cards_that_the_model_uses_count(tmp_path: Path, file: Path) -> None:
    both = [gpu(0, 24, 1), gpu(1, 24, 12)]
    whole = snapshot_of(tmp_path, {"model": {"path": str(file)}, "engine": {**AUTO, "devices": ["CUDA1"]}})
    assert context(chosen(whole, "engine", both)) == context(chosen(whole, "engine", [gpu(0, 1), gpu(1, 12)]))
    assert context(chosen(whole, "engine", both)) > 2048


def test_several_models_share_the_budget(tmp_path: Path, file: Path) -> None:
    fixed = {"context_per_slot": 8192, "slots": 4, "gpu_layers": "all"}
    models = {"a": {"path": str(file), "engine": AUTO}, "b": {"path": str(file), "engine": fixed}}
    whole = snapshot_of(tmp_path, {"models": models})
    alone = snapshot_of(tmp_path, {"models": {"a": models["a"]}})
    assert context(chosen(whole, "engine-a", [gpu(0, 24)])) < context(chosen(alone, "engine-a", [gpu(0, 24)]))
    absent = snapshot_of(tmp_path, {"models": {"a": models["a"], "b": {"path": str(tmp_path / "absent.gguf")}}})
    assert chosen(absent, "engine-a", [gpu(0, 24)]) == chosen(alone, "engine-a", [gpu(0, 24)])
    with pytest.raises(ModelError, match=r"absent\.gguf does not exist"):
        chosen(absent, "engine-b", [gpu(0, 24)])


def test_what_is_chosen_is_recorded_and_told(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", context=2048)
    whole = snapshot_of(tmp_path, {"model": {"path": str(model)}, "engine": {"context_per_slot": "auto"}})
    run = whole.locations.run
    run.root.mkdir()
    snapshots.write(whole, run.snapshot)
    changed, notice = choose(snapshots.read(run.snapshot), {}, [])
    assert changed.settings.engine.context_per_slot == 2048
    assert changed.settings.engine.slots == 4
    assert engine_values.in_force(run) == {"context_per_slot": 2048}
    reason = "what the model was trained for, for each slot"
    assert notice.message == f"engine settings that are auto: context_per_slot 2048 ({reason})"


def test_it_says_that_it_will_not_fit(tmp_path: Path, file: Path) -> None:
    whole = snapshot_of(tmp_path, {"model": {"path": str(file)}, "engine": AUTO})
    found = chosen(whole, "engine", [gpu(0, 24, 1)])
    assert (context(found), found.fits) == (2048, False)
    notice = notice_of(ChosenValues(found.values, {}, found.fits))
    assert "expected not to fit into the free memory" in notice.message
    assert "llama-gguf plan" in notice.hint
