"""Several GPUs: the split of llama.cpp, that each of them has to hold its share, and what --fit distributes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.memory.devices import Gpu
from llama_gguf.models.memory.estimate import DEVICE_CONTEXT_BYTES, MIB
from llama_gguf.models.memory.plan import FIT_MARGIN_BYTES, Machine, MemoryPlan, Weights, plan_memory
from llama_gguf.models.memory.several_gpus import SeveralGpusPlan, chosen_gpus, given_split, plan_on_gpus
from llama_gguf.settings.sections.engine import Engine
from support.sparse_model import Dimensions, write_sparse_model

GIB = 1 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """An 8B model: 33 layers with the output layer, 4.1 GiB."""
    header = read_header(write_sparse_model(tmp_path_factory.mktemp("m") / "m.gguf", "llama", Dimensions()))
    return Weights(header.tensors, read_architecture(header))


def plan(
    model: Weights, *gibibytes: float, host: int | None = None, more: Any = None, **engine: Any
) -> SeveralGpusPlan:
    gpus = [Gpu(f"GPU {number}", int(size * GIB)) for number, size in enumerate(gibibytes)]
    machine = Machine(max(1, sum(gpu.total_bytes for gpu in gpus)), host)

    def replan(engine: Engine) -> MemoryPlan:
        return plan_memory(model, engine, machine, **(more or {}))

    return plan_on_gpus(replan, Engine(**engine), gpus)


def layers(found: SeveralGpusPlan) -> list[int]:
    return [share.layers for share in found.shares]


def upper_bound(sizes: list[float], count: int) -> list[int]:
    """llama.cpp's get_layer_buft_list, word for word: each layer by its place among the sums of free memory."""
    sums = [sum(sizes[: number + 1]) / sum(sizes) for number in range(len(sizes))]
    chosen = [next(number for number, point in enumerate(sums) if point > layer / count) for layer in range(count)]
    return [chosen.count(number) for number in range(len(sizes))]


@pytest.mark.parametrize(
    "sizes", [(24, 24), (24, 12), (12, 24), (24, 24, 24), (8, 48, 16), (16,) * 8, (11.5, 23.5, 7.5, 79.2)]
)
def test_the_split_is_that_of_llama_cpp(model: Weights, sizes: tuple[float, ...]) -> None:
    found = plan(model, *sizes, gpu_layers="all")
    free = [size - DEVICE_CONTEXT_BYTES / GIB for size in sizes]
    assert layers(found) == upper_bound(free, 33)
    assert layers(plan(model, *sizes, gpu_layers=20)) == upper_bound(free, 20)
    assert (found.verdict, found.layers_on_device) == ("fits", 33)
    assert layers(plan(model, *sizes)) == layers(found)  # auto changes nothing where each has its margin


@pytest.mark.parametrize(
    ("arguments", "split"),
    [
        (("--tensor-split", "3,1"), (3, 1)),
        (("-ts", "1/2"), (1, 2)),
        (("-ts", "0.5,0.5,7"), (0.5, 0.5)),
        (("-ts", "1"), (1, 0)),
        (("-ts", "0,0"), ()),
        (("-ts", "many"), ()),
        (("-ts",), ()),
        (("--no-host", "--verbose"), ()),
    ],
)
def test_a_split_of_the_operators_own(arguments: tuple[str, ...], split: tuple[float, ...]) -> None:
    assert given_split(Engine(extra_args=arguments), 2) == split


def test_it_is_followed_and_nothing_is_fitted(model: Weights) -> None:
    """llama.cpp does not fit what the operator has split."""
    assert layers(plan(model, 24, 24, extra_args=("-ts", "3,1"))) == upper_bound([3, 1], 33)
    for given in ({"tensor_split": (1, 3)}, {"extra_args": ("-ts", "1,3")}):
        tight = plan(model, 24, 3, **given)
        assert (layers(tight), tight.verdict) == (upper_bound([1, 3], 33), "does not fit")
    everything = layers(plan(model, 4, 3, 4, gpu_layers="all"))
    assert layers(plan(model, 4, 3, 4, cpu_moe_layers=1)) == everything != layers(plan(model, 4, 3, 4))


@pytest.mark.parametrize(
    ("engine", "chosen"),
    [
        ({}, (0, 1, 2)),
        ({"devices": ("CUDA1",)}, (1,)),
        ({"devices": ("CUDA2", "CUDA0")}, (2, 0)),
        ({"extra_args": ("--device", "CUDA0,CUDA2")}, (0, 2)),
        ({"devices": ("CUDA7",)}, (0, 1, 2)),
        ({"devices": ("none",)}, (0, 1, 2)),
        ({"split_mode": "none"}, (0,)),
        ({"split_mode": "none", "main_gpu": 2}, (2,)),
        ({"split_mode": "none", "main_gpu": 1, "devices": ("CUDA2", "CUDA0")}, (0,)),
        ({"split_mode": "none", "main_gpu": 9}, (0,)),
        ({"extra_args": ("-sm", "none", "-mg", "1")}, (1,)),
        ({"split_mode": "layer", "main_gpu": 1}, (0, 1, 2)),
    ],
)
def test_which_gpus_a_model_uses(engine: dict[str, Any], chosen: tuple[int, ...]) -> None:
    assert chosen_gpus(Engine(**engine), 3) == chosen
    assert chosen_gpus(Engine(**engine), 0) == ()


def test_all_bytes_are_on_one_of_them(model: Weights) -> None:
    draw = random.Random(5)
    for _ in range(40):
        sizes = [draw.choice([2, 6, 8, 12, 24]) for _ in range(draw.randrange(2, 6))]
        engine: dict[str, Any] = {"gpu_layers": draw.choice(["auto", "all", 0, 7, 33]), "slots": draw.randrange(1, 9)}
        found = plan(model, *sizes, **engine)
        assert sum(share.device for share in found.shares) == found.device
        assert sum(layers(found)) == found.layers_on_device
        assert found.verdict == ("does not fit" if any(share.full for share in found.shares) else "fits")
        alone = plan_memory(model, Engine(**engine | {"gpu_layers": found.layers_on_device}), Machine(1000 * GIB, None))
        for item, single in zip(found.items, alone.items, strict=True):
            assert item.host == single.host
            if item.name in ("weights", "KV cache"):
                assert item.device == single.device


def test_enough_in_sum_is_not_enough(model: Weights) -> None:
    """A small GPU beside a large one: llama.cpp's split by free memory leaves no room for the rest on the small one."""
    engine: dict[str, Any] = {"gpu_layers": "all", "slots": 8, "context_per_slot": 8192, "ubatch_size": 2048}
    found = plan(model, 2.5, 14, **engine)
    assert found.device < (found.device_capacity or 0)
    assert found.verdict == "does not fit"
    assert [share.full for share in found.shares] == [True, False]
    assert found.advice == (
        "GPU 0 is too full with its 5 layers; engine.gpu_layers: auto distributes them as all GPUs together have room",
    )
    fitted = plan(model, 2.5, 14, **engine | {"gpu_layers": "auto"})
    assert fitted.verdict == "fits"
    assert layers(fitted)[0] < 5


def test_fit_fills_from_the_last_layer_on_and_leaves_its_margin(model: Weights) -> None:
    found = plan(model, 4, 3, 4)
    assert found.verdict == "fits"
    assert found.layers_on_device < 33
    assert found.advice[0] == f"{found.layers_on_device} of 33 layers fit on the GPUs, the rest is slow"
    for number, share in enumerate(found.shares):
        assert 0 < share.device <= share.gpu.total_bytes - FIT_MARGIN_BYTES
        more = plan(model, *(share.gpu.total_bytes / GIB for share in found.shares[number:]))
        assert layers(more)[-1] == layers(found)[-1]  # what is in front does not change it
    room = found.shares[-1].gpu.total_bytes - FIT_MARGIN_BYTES - found.shares[-1].device
    assert room < 200 * MIB  # less than another layer


def test_without_fit_nothing_is_distributed(model: Weights) -> None:
    engine: dict[str, Any] = {"slots": 12}
    found = plan(model, 4, 3, 4, fit=False, **engine)
    assert (layers(found), found.verdict) == ([13, 8, 12], "does not fit")
    assert plan(model, 4, 3, 4, **engine).verdict == "fits"


def test_full_gpus_and_none(model: Weights) -> None:
    """After other models a GPU can have nothing left."""
    nothing = plan(model, 0, 0)
    assert (layers(nothing), nothing.verdict, nothing.device) == ([0, 0], "fits", 0)
    assert plan(model, 0, 0, gpu_layers="all").verdict == "does not fit"
    assert layers(plan(model, 0, 24)) == [0, 33]
    assert layers(plan(model, 24, 0)) == [33, 0]
    on_cpu = plan(model, 8, 8, host=1 * GIB, gpu_layers=0)
    assert (layers(on_cpu), on_cpu.device, on_cpu.verdict) == ([0, 0], 0, "does not fit")


def test_companions_have_their_place(model: Weights) -> None:
    """The projector is on the first GPU; a draft is split as the model is."""
    alone = plan(model, 24, 24)
    seen = plan(model, 24, 24, more={"mmproj": model.tensors[:40]})
    projector = seen.device - alone.device
    assert projector > 0
    assert [b.device - a.device for a, b in zip(alone.shares, seen.shares, strict=True)] == [projector, 0]
    drafted = plan(model, 24, 24, more={"draft": model})
    first, second = (b.device - a.device for a, b in zip(alone.shares, drafted.shares, strict=True))
    assert first == second > 0


def test_each_gpu_has_its_own_context_and_buffers(model: Weights) -> None:
    one = plan_memory(model, Engine(), Machine(24 * GIB, None))
    two = plan(model, 24, 24)
    sizes = {item.name: item.device for item in one.items}
    assert {item.name: item.device for item in two.items} == sizes | {
        "program": 2 * DEVICE_CONTEXT_BYTES,
        "compute buffers": 2 * sizes["compute buffers"],
    }
