"""What several models leave to one of them: one whose settings are auto takes what is left, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.plan import Machine
from llama_gguf.models.memory.repack import NO_CPU
from llama_gguf.models.memory.together import need_of, total
from llama_gguf.models.planning.budget import Left, left_for, plan_all, read_all, scaled, shared_memory
from llama_gguf.models.planning.weights import Estimate, header_reader
from llama_gguf.models.source import plan_sources
from llama_gguf.settings import Settings, locate, parse
from llama_gguf.settings.one_model import each_model
from support.sparse_model import Dimensions, write_sparse_model

GIB = 1 << 30
AUTO = {"context_per_slot": "auto", "slots": 1, "gpu_layers": "all"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", Dimensions())


def settings_of(file: Path, models: dict[str, dict[str, Any]], **sections: Any) -> Settings:
    given = {name: {"path": str(file), **model} for name, model in models.items()}
    return parse({"models": given, **sections})


def plan(settings: Settings, tmp_path: Path, gib: float, gpus: tuple[Gpu, ...] = ()) -> dict[str, Estimate]:
    models = each_model(settings)
    locations = locate(settings, {"LLAMA_GGUF__PATHS__DATA_DIR": str(tmp_path)})
    known = read_all(
        {one.key: plan_sources(one.settings.model, locations, {}, one.place) for one in models}, header_reader({})
    )
    machine = shared_memory(settings, int(gib * GIB), None)
    left = Left(machine, scaled(gpus, machine))
    cpus = {one.key: NO_CPU for one in models}
    estimates = plan_all(models, known, left, cpus, growth=False)
    for one in models:  # an engine's program chooses the same by itself
        own = left_for(one.key, models, known, left, cpus)
        assert own is not None
        weights = known[one.key]
        assert not isinstance(weights, Exception)
        assert weights.resolve(one.settings.engine, own.machine, own.gpus) == estimates[one.key].resolved
    return estimates


def context(estimate: Estimate) -> int:
    assert isinstance(estimate.resolved.engine.context_per_slot, int)
    return estimate.resolved.engine.context_per_slot


def test_it_takes_what_those_leave_whose_settings_are_given(file: Path, tmp_path: Path) -> None:
    fixed = {"engine": {"context_per_slot": 8192, "slots": 4, "gpu_layers": "all"}}
    alone = plan(settings_of(file, {"a": {"engine": AUTO}}), tmp_path, 20)
    both = plan(settings_of(file, {"a": {"engine": AUTO}, "b": fixed}), tmp_path, 20)
    assert context(both["a"]) < context(alone["a"])
    needs = total(need_of(found.plan) for found in both.values())
    assert 18 * GIB < needs.device <= 20 * GIB
    assert both["b"].resolved.choices == ()


def test_two_of_them_do_not_starve_each_other(file: Path, tmp_path: Path) -> None:
    found = plan(settings_of(file, {"a": {"engine": AUTO}, "b": {"engine": AUTO}}), tmp_path, 20)
    assert context(found["a"]) > context(found["b"]) >= 2048
    assert total(need_of(one.plan) for one in found.values()).device <= 20 * GIB


def test_it_leaves_room_for_the_largest_of_those_that_take_turns(file: Path, tmp_path: Path) -> None:
    turns = {
        "small": {"load": "on_demand", "engine": {"context_per_slot": 2048, "slots": 1, "gpu_layers": "all"}},
        "large": {"load": "on_demand", "engine": {"context_per_slot": 32768, "slots": 1, "gpu_layers": "all"}},
    }
    found = plan(settings_of(file, {"a": {"engine": AUTO}, **turns}), tmp_path, 20)
    large = need_of(found["a"].plan) + need_of(found["large"].plan)
    assert 18 * GIB < large.device <= 20 * GIB
    # Not for both at once, and those on demand take all that is left to them.
    assert (large + need_of(found["small"].plan)).device > 20 * GIB
    auto = plan(settings_of(file, {"d": {"load": "on_demand", "engine": AUTO}}), tmp_path, 20)
    assert need_of(auto["d"].plan).device > 15 * GIB


def test_the_budget_of_the_configuration_bounds_it(file: Path, tmp_path: Path) -> None:
    settings = settings_of(file, {"a": {"engine": AUTO}}, memory={"device_mib": 12 * 1024})
    found = plan(settings, tmp_path, 80)
    assert 11 * GIB < need_of(found["a"].plan).device <= 12 * GIB


def test_on_several_gpus_each_is_filled_for_itself(file: Path, tmp_path: Path) -> None:
    gpus = (Gpu("one", 8 * GIB), Gpu("two", 8 * GIB))
    found = plan(settings_of(file, {"a": {"engine": AUTO}}), tmp_path, 16, gpus)
    assert context(found["a"]) > 8192
    assert found["a"].plan.verdict == "fits"


def test_what_is_free_now_bounds_it_too() -> None:
    left = Left(Machine(16 * GIB, 64 * GIB), (Gpu("one", 8 * GIB), Gpu("two", 8 * GIB)))
    assert left.at_most([4 * GIB, 9 * GIB], 32 * GIB) == Left(
        Machine(13 * GIB, 32 * GIB), (Gpu("one", 4 * GIB), Gpu("two", 8 * GIB))
    )
    assert left.at_most([0, 0], None).machine == Machine(1, 64 * GIB), "a full GPU is still one"
    assert Left(Machine(0, None), ()).at_most([], GIB) == Left(Machine(0, GIB), ())
    assert Left(Machine(0, None), ()).at_most([], None).machine.host_bytes is None


def test_a_model_whose_file_is_missing_leaves_all_to_the_others(file: Path, tmp_path: Path) -> None:
    settings = settings_of(file, {"a": {"engine": AUTO}})
    lone = plan(settings, tmp_path, 20)
    settings = parse({"models": {"a": {"path": str(file), "engine": AUTO}, "b": {"path": str(tmp_path / "no.gguf")}}})
    models = each_model(settings)
    locations = locate(settings, {"LLAMA_GGUF__PATHS__DATA_DIR": str(tmp_path)})
    known = read_all(
        {one.key: plan_sources(one.settings.model, locations, {}, one.place) for one in models}, header_reader({})
    )
    cpus = {one.key: NO_CPU for one in models}
    left = Left(shared_memory(settings, 20 * GIB, None), ())
    found = plan_all(models, known, left, cpus, growth=False)
    assert set(found) == {"a"}
    assert context(found["a"]) == context(lone["a"])
    assert left_for("b", models, known, left, cpus) is None
