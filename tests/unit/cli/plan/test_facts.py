"""Several models in one plan; that of one model is in tests/unit/cli/commands/test_plan.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console

from llama_gguf.cli.plan.data import as_data
from llama_gguf.cli.plan.facts import PlanFacts, gather
from llama_gguf.cli.plan.view import show
from llama_gguf.errors import ExitCode
from llama_gguf.models.memory.devices import gpus_of_sizes
from llama_gguf.settings.loading.load import load
from support.sparse_model import Dimensions, write_sparse_model

if TYPE_CHECKING:
    from llama_gguf.models.memory.plan import MemoryPlan

SMALL = Dimensions(layers=16, width=2048, head=64, feed_forward=8192)
MIB = 1 << 20


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    write_sparse_model(folder / "large.gguf", "llama", Dimensions())
    write_sparse_model(folder / "small.gguf", "llama", SMALL)
    return folder


@pytest.fixture(autouse=True)
def _nowhere_special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def planned(
    shelf: Path, models: dict[str, dict[str, Any]], vram: str = "24GiB", ram: int | None = None, **sections: Any
) -> PlanFacts:
    tree = {
        "models": {name: {"path": f"{shelf}/small.gguf", **model} for name, model in models.items()},
        "paths": {"data_dir": "data", "run_dir": "run"},
        "engine": {"context_per_slot": 4096, "slots": 2},
        **sections,
    }
    Path("config.yaml").write_text(json.dumps(tree))
    return gather(load(Path("config.yaml"), {}), {}, gpus=gpus_of_sizes(vram), ram=ram)


def shown(facts: PlanFacts) -> str:
    out = io.StringIO()
    show(facts, Console(file=out, soft_wrap=True, highlight=False, width=40))
    return out.getvalue()


def test_each_model_has_an_engine_of_its_own(shelf: Path, tmp_path: Path) -> None:
    large = {"path": f"{shelf}/large.gguf", "engine": {"slots": 5}}
    facts = planned(shelf, {"embed": {"aliases": ["text-embedding-3-small"], "load": "on_demand"}, "chat": large})
    found = as_data(facts)
    assert [model["name"] for model in found["models"]] == ["embed", "chat"]
    embed, chat = found["models"]
    assert embed["names"] == ["embed", "text-embedding-3-small"]
    assert (embed["load"], embed["required"], embed["program"]) == ("on_demand", False, "engine-embed")
    assert (chat["load"], chat["required"], chat["program"]) == ("always", True, "engine-chat")
    assert chat["socket"] == f"{tmp_path}/run/engine-chat.sock"
    argv = {model["name"]: model["engine"]["argv"] for model in found["models"]}
    assert argv["embed"][argv["embed"].index("--parallel") + 1] == "2"
    assert argv["chat"][argv["chat"].index("--parallel") + 1] == "5"
    assert argv["chat"][argv["chat"].index("--model") + 1] == f"{shelf}/large.gguf"
    assert [file["setting"] for file in chat["files"]] == ["models.chat"]
    assert {program["name"] for program in found["programs"]} >= {"engine-chat", "engine-embed"}
    for key in ("model", "memory", "memory_problem", "largest"):  # of one model only
        assert found[key] is None
    assert found["engine"]["argv"] is None
    assert found["sockets"]["engine"] is None
    json.dumps(found)


def test_what_fits_together(shelf: Path) -> None:
    models = {
        "chat": {"path": f"{shelf}/large.gguf", "engine": {"gpu_layers": "all"}},
        "a": {"load": "on_demand", "engine": {"gpu_layers": "all"}},
        "b": {"load": "on_demand", "engine": {"gpu_layers": "all"}},
    }
    needs = as_data(planned(shelf, models))["together"]["needs"]
    chat, small = needs["chat"]["device_bytes"], needs["a"]["device_bytes"]
    assert needs["a"] == needs["b"]
    rooms = {
        chat + 2 * small: ("fits", [["chat", "a", "b"]], ExitCode.OK),
        chat + 2 * small - 1: ("fits", [["chat", "a"], ["chat", "b"]], ExitCode.OK),
        chat + small - 1: ("does not fit", [["chat"]], ExitCode.DOES_NOT_FIT),
        chat - 1: ("does not fit", [], ExitCode.DOES_NOT_FIT),
    }
    for room, (verdict, sets, code) in rooms.items():
        facts = planned(shelf, models, vram=f"{room}B")
        together = as_data(facts)["together"]
        assert (together["verdict"], together["sets"], facts.exit_code) == (verdict, sets, code)
        assert bool(together["advice"]) == (code != ExitCode.OK)


def test_the_smallest_change_is_advised(shelf: Path) -> None:
    models: dict[str, dict[str, Any]] = {
        "large": {"path": f"{shelf}/large.gguf", "engine": {"gpu_layers": "all"}},
        "small": {"engine": {"gpu_layers": "all"}},
    }
    needs = as_data(planned(shelf, models))["together"]["needs"]
    large, small = needs["large"]["device_bytes"], needs["small"]["device_bytes"]
    advice = as_data(planned(shelf, models, f"{large + small - 1}B"))["together"]["advice"]
    assert advice == ["models.small.load: on_demand would leave enough for the others that are always loaded"]
    models["small"]["load"] = "on_demand"
    (never,) = as_data(planned(shelf, models, f"{large + small - 1}B"))["together"]["advice"]
    assert never.startswith("models.small never fits beside what is always loaded: ")
    (alone,) = as_data(planned(shelf, models, f"{large - 1}B"))["together"]["advice"]
    assert alone.startswith("models.large alone needs more than there is")


def test_layers_go_where_the_models_before_leave_room(shelf: Path) -> None:
    """As with llama-server's own fit: an on-demand model that shares a GPU gets fewer layers on it, and still fits."""
    models = {"late": {"load": "on_demand"}, "first": {"path": f"{shelf}/large.gguf"}, "second": {}}
    roomy = {model.one.key: model.memory for model in planned(shelf, models, "48GiB").models}
    assert all(plan and plan.layers_on_device == plan.layers for plan in roomy.values())
    tight = {model.one.key: model.memory for model in planned(shelf, models, "8GiB").models}
    assert None not in tight.values()
    first, second, late = (cast("MemoryPlan", tight[name]) for name in ("first", "second", "late"))
    assert first.layers_on_device == first.layers
    assert second.device_capacity == (8 << 30) - first.device
    assert late.device_capacity == second.device_capacity - second.device
    assert late.layers_on_device < second.layers_on_device <= second.layers


def test_what_each_of_several_gpus_has_left(shelf: Path) -> None:
    models: dict[str, dict[str, Any]] = {"first": {"path": f"{shelf}/large.gguf"}, "second": {}}
    first, second = (item["memory"]["shares"] for item in as_data(planned(shelf, models, "2x8GiB"))["models"])
    assert [share["layers"] for share in first] == [17, 16]
    for before, after in zip(first, second, strict=True):
        assert after["device_capacity_bytes"] == (8 << 30) - before["device_bytes"]
    half = as_data(planned(shelf, models, "2x8GiB", memory={"device_mib": 8192}))["models"][0]["memory"]["shares"]
    assert [share["device_capacity_bytes"] for share in half] == [4 << 30, 4 << 30]


def test_each_model_on_a_gpu_of_its_own(shelf: Path) -> None:
    models: dict[str, dict[str, Any]] = {
        "first": {"path": f"{shelf}/large.gguf", "engine": {"devices": ["CUDA1"]}},
        "second": {"engine": {"split_mode": "none", "main_gpu": 1}},
        "third": {"load": "on_demand"},
    }
    first, second, third = (item["memory"] for item in as_data(planned(shelf, models, "4GiB, 24GiB"))["models"])
    assert (first["device_capacity_bytes"], first["shares"]) == (24 << 30, [])
    assert second["device_capacity_bytes"] == (24 << 30) - first["device_bytes"]
    left = (24 << 30) - first["device_bytes"] - second["device_bytes"]
    assert [share["device_capacity_bytes"] for share in third["shares"]] == [4 << 30, left]
    too_small = {"first": {"path": f"{shelf}/large.gguf", "engine": {"devices": ["CUDA0"], "gpu_layers": "all"}}}
    assert planned(shelf, too_small, "4GiB, 24GiB").exit_code == ExitCode.DOES_NOT_FIT


def test_what_a_program_asks_takes_one_plan_of_each_model(shelf: Path) -> None:
    facts = planned(shelf, {"a": {}})
    alone = gather(load(Path("config.yaml"), {}), {}, gpus=facts.gpus, growth=False)
    assert facts.models[0].largest
    assert alone.models[0].largest is None
    assert alone.models[0].memory == facts.models[0].memory


def test_a_full_gpu_is_still_one(shelf: Path) -> None:
    """It is not planned as if there were none: what has to be on it does not fit."""
    models: dict[str, dict[str, Any]] = {"first": {"path": f"{shelf}/large.gguf"}, "second": {}}
    need = as_data(planned(shelf, models, "48GiB"))["together"]["needs"]["first"]["device_bytes"]
    models["first"]["engine"] = {"gpu_layers": "all"}
    auto = planned(shelf, models, f"{need}B").models[1].memory
    assert auto is not None
    assert (auto.device_capacity, auto.layers_on_device, auto.verdict) == (1, 0, "fits")
    models["second"]["engine"] = {"gpu_layers": "all"}
    assert planned(shelf, models, f"{need}B").exit_code == ExitCode.DOES_NOT_FIT


def test_the_budget_of_the_configuration_counts(shelf: Path) -> None:
    facts = planned(shelf, {"a": {}, "b": {}}, "24GiB", 64 << 30, memory={"device_mib": 1000, "host_mib": 100_000})
    together = as_data(facts)["together"]
    assert together["device_capacity_bytes"] == 1000 * MIB
    assert together["host_capacity_bytes"] == 64 << 30
    unknown = planned(shelf, {"a": {}, "b": {}}, "24GiB", memory={"host_mib": 2000})
    assert as_data(unknown)["together"]["host_capacity_bytes"] == 2000 * MIB


def test_a_model_that_cannot_be_read_hides_no_other(shelf: Path) -> None:
    facts = planned(shelf, {"good": {}, "bad": {"path": "absent.gguf"}})
    assert facts.verdict == "unknown"
    assert facts.exit_code == ExitCode.CONFIG
    good, bad = as_data(facts)["models"]
    assert good["memory"]["verdict"] == "fits"
    assert bad["memory"] is None
    assert bad["memory_problem"].startswith("models.bad: ")
    assert list(as_data(facts)["together"]["needs"]) == ["good"]
    text = shown(facts)
    assert "  unknown: models.bad: " in text
    too_large = {"large": {"path": f"{shelf}/large.gguf", "engine": {"gpu_layers": "all"}}}
    worse = planned(shelf, {"bad": {"path": "absent.gguf"}, **too_large}, "2GiB")
    assert worse.exit_code == ExitCode.DOES_NOT_FIT


def test_for_a_person(shelf: Path, tmp_path: Path) -> None:
    chat = {"path": f"{shelf}/large.gguf", "engine": {"gpu_layers": "all"}}
    facts = planned(shelf, {"chat": chat, "embed": {"load": "on_demand"}})
    text = shown(facts)
    for line in (
        "model chat",
        "  loaded       always",
        "  loaded        by the first request; not required",
        f"  engine of chat   {tmp_path}/run/engine-chat.sock",
        "llama-server command of embed",
        "memory of chat",
        "memory of all models",
        "  fits: at the same time chat + embed",
    ):
        assert f"{line}\n" in text
    rows = text[text.index("memory of all models") :].splitlines()[1:6]
    assert [row.split()[0] for row in rows[1:]] == ["chat", "embed", "always", "available"]
    assert len({row.index("MiB") for row in rows[1:4]}) == 1  # columns stay whole in a narrow terminal


def test_of_models_that_are_not_known_nothing_is_said_to_fit(shelf: Path) -> None:
    facts = planned(shelf, {"bad": {"path": "absent.gguf"}, "worse": {"path": "none.gguf", "load": "on_demand"}})
    assert as_data(facts)["together"]["verdict"] == "unknown"
    assert "  unknown: of no model it is known what it needs\n" in shown(facts)


def test_a_long_shelf(shelf: Path) -> None:
    facts = planned(shelf, {f"m{number}": {"load": "on_demand"} for number in range(17)}, "6GiB")
    together = as_data(facts)["together"]
    assert together["verdict"] == "fits"
    assert len(together["sets"]) == 64
    assert ", and 58 more sets" in shown(facts)
