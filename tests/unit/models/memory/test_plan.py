"""The memory plan, held to what llama-server itself reports before it loads a model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from llama_gguf.cpu import Cpu, read_cpu
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.inventory import all_tensors
from llama_gguf.models.memory.estimate import MIB, Weights, host_experts
from llama_gguf.models.memory.plan import Machine, MemoryPlan, plan_memory
from llama_gguf.settings.sections.engine import Engine
from support.memory_reports import allocated, projected
from support.sparse_model import Dimensions, write_sparse_model

LLAMA_8B = Dimensions()
LLAMA_1B = Dimensions(layers=16, width=2048, head=64, feed_forward=8192)
QWEN_30B_A3B = Dimensions(
    layers=48,
    width=2048,
    kv_heads=4,
    feed_forward=768,
    vocabulary=151936,
    experts=128,
    experts_used=8,
)
GEMMA_12B = Dimensions(
    layers=48,
    width=3840,
    heads=16,
    kv_heads=8,
    head=256,
    feed_forward=15360,
    vocabulary=262144,
)
GEMMA_EXTRA = {"attention.sliding_window": 1024}
WEIGHT_TYPES = frozenset(
    ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
)
THIS_CPU = read_cpu(Path("/proc/cpuinfo").read_text()) or Cpu()


def weights_of(path: Path) -> Weights:
    return Weights(all_tensors(path), read_architecture(read_header(path)))


def plan(path: Path, device: int | None = 0, host: int | None = None, **engine: Any) -> MemoryPlan:
    return plan_memory(weights_of(path), Engine(**engine), Machine(device, host))


@pytest.mark.engine
@pytest.mark.parametrize(
    "case",
    [
        ("llama", LLAMA_8B, {}, {}),
        ("llama", LLAMA_8B, {}, {"context_per_slot": 8192, "slots": 16}),
        ("llama", LLAMA_8B, {}, {"context_per_slot": 131072, "slots": 1}),
        ("llama", LLAMA_8B, {}, {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        ("llama", LLAMA_8B, {}, {"flash_attention": "off"}),
        ("llama", LLAMA_8B, {}, {"ubatch_size": 2048}),
        ("llama", LLAMA_8B, {}, {"slots": 8, "speculative": {"types": ("ngram-simple",), "max_tokens": 200}}),
        ("llama", LLAMA_1B, {}, {"context_per_slot": 1000, "slots": 3}),
        ("llama", LLAMA_1B, {}, {"extra_args": ("--no-repack",)}),
        ("llama", replace(LLAMA_1B, tied=True), {}, {}),
        ("qwen3moe", QWEN_30B_A3B, {}, {"context_per_slot": 32768}),
        ("gemma3", GEMMA_12B, GEMMA_EXTRA, {}),
        ("gemma3", GEMMA_12B, GEMMA_EXTRA, {"context_per_slot": 32768, "slots": 8}),
    ],
)
def test_agrees_with_llama_server(
    engine_binary: Path, tmp_path: Path, case: tuple[str, Dimensions, dict[str, Any], dict[str, Any]]
) -> None:
    architecture, size, extra, engine = case
    model = write_sparse_model(tmp_path / "m.gguf", architecture, size, extra=extra)
    _compare(engine_binary, model, tmp_path / "e.sock", Engine(**engine), compute_tolerance=0.05)


@pytest.mark.engine
@pytest.mark.parametrize(("fit", "context"), [("on", 2048), ("off", 512)])
def test_the_trained_context_is_each_slots_own_with_fit(
    engine_binary: Path, tiny_model: Path, tmp_path: Path, fit: str, context: int
) -> None:
    """What llama-server gives each of four slots if no context is set: it was read as shared in both cases."""
    wish = Engine(context_per_slot=0, fit=fit == "on")
    asked = Engine(context_per_slot=0, extra_args=("--fit", fit))
    cache = allocated(engine_binary, tiny_model, tmp_path / "e.sock", asked)["KV"]
    found = plan_memory(weights_of(tiny_model), wish, Machine(0, None))
    assert found.context_per_slot == context
    assert host(found, "KV cache") / MIB == pytest.approx(cache, rel=0.01)


@pytest.mark.starter
def test_agrees_with_llama_server_on_real_models(
    engine_binary: Path, starter_model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for model in (starter_model, tiny_model):
        _compare(engine_binary, model, tmp_path / "e.sock", Engine(slots=2), compute_tolerance=0.05)


@pytest.mark.engine
@pytest.mark.parametrize("kind", [kind for kind in gguf.GGMLQuantizationType if kind.name in WEIGHT_TYPES])
@pytest.mark.parametrize("tied", [False, True])
def test_repacks_as_llama_server(
    engine_binary: Path, tmp_path: Path, kind: gguf.GGMLQuantizationType, tied: bool
) -> None:
    """Whatever this machine's processor is: of each type, with rows that some kernels take and others don't."""
    for vocabulary in (64_004, 64_008, 64_032):
        size = Dimensions(2, 1024, 8, 4, 128, 2048, vocabulary, tied=tied)
        model = write_sparse_model(tmp_path / "m.gguf", "llama", size, quantisation=kind)
        _compare(engine_binary, model, tmp_path / "e.sock", Engine(slots=1), compute_tolerance=9.0)


def _compare(binary: Path, model: Path, socket: Path, engine: Engine, *, compute_tolerance: float) -> None:
    rows = projected(binary, model, socket, engine)
    found = plan_memory(weights_of(model), engine, Machine(0, None, THIS_CPU))
    items = {item.name: item.host / MIB for item in found.items}
    context, compute = (sum(row[column] for row in rows.values()) for column in (1, 2))
    copied = {name: weights for name, (weights, _, _) in rows.items() if name != "Host"}
    assert items["weights"] == pytest.approx(rows["Host"][0], rel=0.02, abs=2)
    assert items.get("repacked weights", 0) == pytest.approx(sum(copied.values()), rel=0.02, abs=2)
    assert items["KV cache"] == pytest.approx(context, rel=0.01, abs=1)
    assert items["compute buffers"] == pytest.approx(compute, rel=compute_tolerance, abs=2)
    assert items["compute buffers"] >= compute - 1, "an estimate of memory has to be on the safe side"


@pytest.fixture(scope="module")
def llama_8b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse_model(tmp_path_factory.mktemp("m") / "l.gguf", "llama", LLAMA_8B)


def device(found: MemoryPlan, name: str) -> int:
    return sum(item.device for item in found.items if item.name == name)


def host(found: MemoryPlan, name: str) -> int:
    return sum(item.host for item in found.items if item.name == name)


def test_layers_go_from_the_output_downwards(llama_8b: Path) -> None:
    everything = plan(llama_8b, 80 << 30, gpu_layers="all")
    assert (everything.layers_on_device, everything.layers) == (33, 33)
    embeddings = host(everything, "weights")
    assert embeddings == weights_of(llama_8b).tensors[0].byte_size
    half = plan(llama_8b, 80 << 30, gpu_layers=17)
    assert device(half, "KV cache") == host(half, "KV cache") == 1024 * MIB
    assert host(half, "weights") + device(half, "weights") == device(everything, "weights") + embeddings
    assert plan(llama_8b, 80 << 30, gpu_layers=500).layers_on_device == 33
    cpu = plan(llama_8b, 80 << 30, gpu_layers=0)
    assert (cpu.device, cpu.layers_on_device) == (0, 0)


def test_auto_takes_what_fits(llama_8b: Path) -> None:
    large, small, tiny = (plan(llama_8b, gigabytes << 30) for gigabytes in (24, 6, 1))
    assert large.layers_on_device == 33
    assert large.advice == ()
    assert 0 < small.layers_on_device < 33
    assert small.device <= 5 << 30
    assert small.verdict == "fits"
    assert re.fullmatch(rf"{small.layers_on_device} of 33 layers .* \d+ MiB more would fit all", small.advice[0])
    assert tiny.layers_on_device == 0
    assert tiny.advice[0].startswith("0 of 33 layers")
    assert plan(llama_8b, 6 << 30, fit=False).layers_on_device == 33
    assert plan(llama_8b, None).layers_on_device == 33


def test_what_does_not_fit_says_what_would(llama_8b: Path) -> None:
    found = plan(llama_8b, 8 << 30, gpu_layers="all", slots=8, context_per_slot=8192)
    assert found.verdict == "does not fit"
    cache, slots, context, layers = found.advice
    most = int(layers.split()[1])
    for count, verdict in ((most, "fits"), (most + 1, "does not fit")):
        tried = plan(llama_8b, 8 << 30, gpu_layers=count, slots=8, context_per_slot=8192)
        assert tried.verdict == verdict
    fewer = int(slots.split()[1])
    shorter = int(context.split()[1])
    assert 1 <= fewer < 8
    assert plan(llama_8b, 8 << 30, gpu_layers="all", slots=fewer, context_per_slot=8192).verdict == "fits"
    assert plan(llama_8b, 8 << 30, gpu_layers="all", slots=fewer + 1, context_per_slot=8192).verdict == "does not fit"
    assert plan(llama_8b, 8 << 30, gpu_layers="all", slots=8, context_per_slot=shorter).verdict == "fits"
    assert plan(llama_8b, 8 << 30, gpu_layers="all", slots=8, context_per_slot=shorter + 256).verdict == "does not fit"
    assert re.fullmatch(r"engine\.cache_type_k and cache_type_v: q8_0 would save 38\d\d MiB", cache)
    hopeless = plan(llama_8b, 2 << 30, gpu_layers="all")
    assert hopeless.advice[-1] == "use a smaller model or a smaller quantisation of it"


def test_what_costs_least_is_advised_first(llama_8b: Path) -> None:
    engine: dict[str, Any] = {"gpu_layers": "all", "slots": 4, "context_per_slot": 8192}
    first = plan(llama_8b, 8 << 30, **engine).advice[0]
    assert first == "engine.cache_type_k and cache_type_v: q8_0 would fit"
    smaller: dict[str, Any] = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    assert plan(llama_8b, 8 << 30, **engine, **smaller).verdict == "fits"
    for without in ({"flash_attention": "off"}, smaller):
        assert not any("q8_0" in line for line in plan(llama_8b, 5 << 30, **engine | without).advice)


def test_if_nothing_alone_is_enough_all_of_it_together_may_be(llama_8b: Path) -> None:
    """Where memory holds the weights and the buffers, and next to no context."""
    engine: dict[str, Any] = {"gpu_layers": "all", "slots": 2, "context_per_slot": 256}
    size = plan(llama_8b, None, gpu_layers="all", slots=1, context_per_slot=256).device
    found = plan(llama_8b, size, **engine)
    assert found.verdict == "does not fit"
    assert "engine.slots: 1 would fit" in found.advice
    tight = plan(llama_8b, size - (10 << 20), **engine)
    line = next(line for line in tight.advice if "with engine.slots: 1" in line)
    assert line == (
        "engine.cache_type_k and cache_type_v: q8_0 with engine.slots: 1 and engine.context_per_slot: 256 would fit"
    )
    together = {"slots": 1, "context_per_slot": 256, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    assert plan(llama_8b, size - (10 << 20), **engine | together).verdict == "fits"
    assert "use a smaller model or a smaller quantisation of it" not in tight.advice


def test_main_memory_counts_too(llama_8b: Path) -> None:
    assert plan(llama_8b, 0, 4 << 30).verdict == "does not fit"
    assert plan(llama_8b, 0, 16 << 30).verdict == "fits"
    assert plan(llama_8b, None, None).verdict == "unknown"


def test_context_as_llama_cpp_rounds_it(llama_8b: Path) -> None:
    assert plan(llama_8b, context_per_slot=1000).context_per_slot == 1024
    assert plan(llama_8b, context_per_slot=0, slots=4).context_per_slot == 131072
    assert plan(llama_8b, context_per_slot=0, slots=4, fit=False).context_per_slot == 32768


def test_experts_in_main_memory(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "m.gguf", "qwen3moe", QWEN_30B_A3B)
    everything = plan(model, 80 << 30, gpu_layers="all")
    without = plan(model, 80 << 30, gpu_layers="all", extra_args=("--cpu-moe",))
    some = plan(model, 80 << 30, gpu_layers="all", extra_args=("--n-cpu-moe", "24", "--jinja"))
    assert device(without, "weights") < device(some, "weights") < device(everything, "weights")
    assert device(without, "weights") < 1500 * MIB
    assert not any("extra_args" in line for line in without.assumptions)
    assert "these extra_args are ignored here: --jinja" in some.assumptions
    assert host_experts(Engine(extra_args=("--n-cpu-moe",))) == 0
    assert host_experts(Engine(extra_args=("-ncmoe", "x"))) == 0
    assert plan(model, 80 << 30, gpu_layers="all", cpu_moe_layers="all").items == without.items
    assert plan(model, 80 << 30, gpu_layers="all", cpu_moe_layers=24).items == some.items


def test_what_turns_fit_off_puts_all_layers_on_the_gpu(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "m.gguf", "qwen3moe", QWEN_30B_A3B)
    fitted = plan(model, 6 << 30)
    assert fitted.layers_on_device < fitted.layers
    assert plan(model, 6 << 30, cpu_moe_layers="all").layers_on_device == fitted.layers
    assert plan(model, 6 << 30, tensor_split=(1.0, 1.0)).layers_on_device == fitted.layers


# What other processors have of what matters here, as /proc/cpuinfo names it.
SAPPHIRE_RAPIDS = Cpu(frozenset(["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "amx_int8"]))
ZEN_4 = Cpu(frozenset(["avx2", "avx512f", "avx512_vnni", "avx512_bf16"]))
HASWELL = Cpu(frozenset(["sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"]))
SANDY_BRIDGE = Cpu(frozenset(["sse4_2", "avx"]))
GRAVITON_2 = Cpu(frozenset(["fp", "asimd", "asimdhp", "asimddp"]))
GRAVITON_3 = Cpu(frozenset(["fp", "asimd", "asimdhp", "asimddp", "sve", "i8mm"]))
RASPBERRY_PI_4 = Cpu(frozenset(["fp", "asimd", "evtstrm", "crc32", "cpuid"]))


@pytest.mark.parametrize(
    ("cpu", "mapped", "copied"),
    [
        # With AMX each block of Q4_K has 4 bytes more: 148 for 144. The 282 of 4308 MiB were seen on Emerald Rapids.
        (SAPPHIRE_RAPIDS, 282, (4308 - 282) * 148 // 144),
        (ZEN_4, 282, 4308 - 282),
        (HASWELL, 282, 4308 - 282),
        (GRAVITON_2, 282, 4308 - 282),
        (GRAVITON_3, 282, 4308 - 282),
        (SANDY_BRIDGE, 4308, 0),
        (RASPBERRY_PI_4, 4308, 0),
        (Cpu(), 4308, 0),
    ],
)
def test_what_a_processor_has_repacked_cannot_be_dropped(llama_8b: Path, cpu: Cpu, mapped: int, copied: int) -> None:
    found = plan_memory(weights_of(llama_8b), Engine(), Machine(0, 64 << 30, cpu))
    assert found.mapped / MIB == pytest.approx(mapped, abs=1)
    assert found.repacked / MIB == pytest.approx(copied, abs=1)
    assert host(found, "weights") == found.mapped
    assert host(found, "repacked weights") == found.repacked
    said = [line for line in found.assumptions if "of weights are repacked" in line]
    assert len(said) == bool(copied)


def test_nothing_is_repacked_where_it_is_switched_off_or_a_gpu_reads_it(llama_8b: Path) -> None:
    model = weights_of(llama_8b)

    def copied(device: int | None, *extra_args: str, **more: Any) -> int:
        return plan_memory(model, Engine(extra_args=extra_args, **more), Machine(device, None, HASWELL)).repacked

    assert copied(0) > 4000 * MIB
    for off in (("--no-repack",), ("-nr",), ("--repack", "-nr")):
        assert copied(0, *off) == 0
    assert copied(0, "-nr", "--repack") > 4000 * MIB
    assert copied(80 << 30, gpu_layers=0) == copied(80 << 30, gpu_layers=16) == copied(None) == 0
    assert copied(80 << 30, "--no-host", gpu_layers=0) > 4000 * MIB
    draft = plan_memory(model, Engine(), Machine(0, None, HASWELL), draft=model)
    (item,) = (item for item in draft.items if item.name == "draft model")
    assert item.mapped == host(draft, "weights")


@pytest.mark.parametrize(("mode", "maps"), [("auto", True), ("mmap", True), ("none", False), ("mmap+mlock", False)])
def test_weights_that_are_read_or_locked_cannot_be_dropped(llama_8b: Path, mode: str, maps: bool) -> None:
    found = plan(llama_8b, extra_args=("--load-mode", mode))
    assert found.mapped == (host(found, "weights") if maps else 0)
    assert ("mapped" in found.assumptions[0]) == maps


def test_a_box_that_would_swap_is_told_how_it_would_not(llama_8b: Path) -> None:
    tight = plan_memory(weights_of(llama_8b), Engine(), Machine(0, 3 << 30, HASWELL))
    assert any("--no-repack" in line for line in tight.advice), tight.advice
    assert not any("--no-repack" in line for line in plan(llama_8b, 0, 3 << 30).advice)


def test_companions(llama_8b: Path, tmp_path: Path) -> None:
    draft = weights_of(write_sparse_model(tmp_path / "d.gguf", "llama", LLAMA_1B))
    tensors = draft.tensors[:4]
    found = plan_memory(
        weights_of(llama_8b),
        Engine(prompt_cache_mib=2048),
        Machine(80 << 30, 64 << 30),
        draft=draft,
        mmproj=tensors,
        adapters=tensors,
    )
    size = sum(tensor.byte_size for tensor in tensors)
    assert device(found, "multimodal projector") == 2 * size
    assert device(found, "LoRA adapters") == size
    assert device(found, "draft model") > 800 * MIB
    assert host(found, "prompt cache (up to)") == 2048 * MIB
    assert any("projector" in line for line in found.assumptions)
    on_cpu = plan_memory(weights_of(llama_8b), Engine(), Machine(0, None), draft=draft)
    assert device(on_cpu, "draft model") == 0
    assert host(on_cpu, "draft model") > 800 * MIB


def test_a_tied_output_layer_is_copied_to_the_gpu(tmp_path: Path) -> None:
    size = Dimensions(layers=2, tied=True)
    tied = weights_of(write_sparse_model(tmp_path / "t.gguf", "llama", size))
    found = plan_memory(tied, Engine(gpu_layers="all"), Machine(80 << 30, None))
    embeddings = tied.tensors[0].byte_size
    assert device(found, "weights") + host(found, "weights") == sum(t.byte_size for t in tied.tensors) + embeddings
    assert host(found, "weights") == embeddings


def test_layers_that_predict_more_tokens_are_not_loaded_unless_they_are_used(llama_8b: Path) -> None:
    model = weights_of(llama_8b)
    whole = sum(tensor.byte_size for tensor in model.tensors)
    last = sum(tensor.byte_size for tensor in model.tensors if tensor.name.startswith("blk.31."))
    assert last > 100 * MIB
    for more, args, expected in (
        (True, (), whole - last),
        (True, ("--spec-type", "draft-mtp"), whole),
        (True, ("--spec-type", "ngram-simple,draft-mtp"), whole),
        (True, ("--spec-type", "draft-simple"), whole - last),
        (False, ("--spec-type", "draft-mtp"), whole - last),
    ):
        architecture = replace(model.architecture, trunk=31, loads_more=more)
        found = plan_memory(replace(model, architecture=architecture), Engine(extra_args=args), Machine(0, None))
        assert host(found, "weights") == expected


def test_what_cannot_be_counted_is_told_instead_of_fits(llama_8b: Path) -> None:
    model = weights_of(llama_8b)
    odd = replace(model, architecture=replace(model.architecture, name="deepseek4"))
    found = plan_memory(odd, Engine(), Machine(0, 64 << 30), draft=odd)
    assert found.verdict == "unknown"
    assert [line.partition(" ")[2].partition(",")[0] for line in found.unknown] == [
        "model's architecture",
        "draft model's architecture",
    ]
    assert plan_memory(odd, Engine(), Machine(0, 1 << 30)).verdict == "does not fit"
    new = replace(model, tensors=(*model.tensors, replace(model.tensors[0], name="x", type_number=99)))
    assert plan_memory(new, Engine(), Machine(0, 64 << 30)).unknown == (
        "the model has tensors of type 99, whose size is not known here",
    )
    assert plan_memory(model, Engine(), Machine(0, 64 << 30)).unknown == ()


@pytest.mark.slow
def test_windowed_models_keep_copies_of_their_state(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "g.gguf", "gemma3", GEMMA_12B, extra=GEMMA_EXTRA)
    found = plan(model, context_per_slot=16384, slots=2)
    one = 1536 * 40 * 2 * 8 * 256 * 2  # cells x windowed layers x (keys, values) x width x f16
    assert host(found, "context checkpoints (up to)") == 2 * 3 * one


def test_embedding_models_take_the_batch_at_once(llama_8b: Path) -> None:
    generate, embed = plan(llama_8b), plan(llama_8b, task="embed")
    assert host(embed, "compute buffers") > 3 * host(generate, "compute buffers") > 0
