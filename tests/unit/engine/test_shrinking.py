"""Less after llama-server ran out of memory: one step at a time, only what is allowed, never below the minima."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llama_gguf.engine.shrinking import ShrinkSteps, less
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.rundir import engine_reduction
from llama_gguf.rundir.engine_reduction import EngineReduction
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import locate
from llama_gguf.settings.sections.settings import parse
from support.model_box import settings_for

EVERYTHING = ["slots", "context", "cache_type", "layers"]
LAYERS = 33
OUT_OF_MEMORY = "E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"


def engine(steps: list[str], **values: Any) -> Any:
    shrink = {"steps": steps} | values.pop("shrink", {})
    return parse({"model": {"path": "/m.gguf"}, "engine": {"shrink": shrink, **values}}).engine


@pytest.mark.parametrize(
    ("chosen", "failed", "expected"),
    [
        (engine([]), "device", None),
        (engine(EVERYTHING, slots=5), "device", {"slots": 2}),
        (engine(EVERYTHING, slots=5, shrink={"min_slots": 4}), "device", {"slots": 4}),
        (engine(EVERYTHING, slots=1, context_per_slot=6000), "host", {"context_per_slot": 3000}),
        (engine(EVERYTHING, slots=1, context_per_slot=3000), "host", {"context_per_slot": 2048}),
        (engine(["context"], context_per_slot=0), "host", None),  # llama-server chooses it
        (engine(["cache_type"]), "host", {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
        (engine(["cache_type"], cache_type_k="q4_0"), "host", {"cache_type_v": "q8_0"}),
        (engine(["cache_type"], flash_attention="off"), "host", {"cache_type_k": "q8_0"}),
        (engine(["cache_type"], cache_type_k="q8_0", cache_type_v="q4_0"), "host", None),
        (engine(["layers"]), "device", {"gpu_layers": 24}),
        (engine(["layers"], gpu_layers="all"), "device", {"gpu_layers": 24}),
        (engine(["layers"], gpu_layers=1), "device", {"gpu_layers": 0}),
        (engine(["layers"], gpu_layers=0), "device", None),
        (engine(["layers"], gpu_layers=20, shrink={"min_gpu_layers": 18}), "device", {"gpu_layers": 18}),
        (engine(["layers"], gpu_layers=20), "host", None),  # fewer there would need more here
        (engine(["context", "slots"]), "device", {"context_per_slot": 2048}),  # in the order of the operator
    ],
)
def test_the_next_step(chosen: Any, failed: Any, expected: dict[str, int | str] | None) -> None:
    assert less(chosen, failed, layers=LAYERS) == expected


def test_a_cache_that_cannot_be_quantised() -> None:
    assert less(engine(["cache_type"]), "host", layers=2, quantisable=False) is None


@given(
    sizes=some.tuples(some.integers(1, 256), some.integers(0, 1 << 24), some.integers(0, 200)),
    steps=some.lists(some.sampled_from(EVERYTHING), max_size=6),
    minima=some.tuples(some.integers(1, 256), some.integers(256, 1 << 20), some.integers(0, 100)),
    failed=some.sampled_from(["device", "host"]),
)
def test_it_ends_above_the_minima(
    sizes: tuple[int, int, int], steps: list[str], minima: tuple[int, int, int], failed: Any
) -> None:
    slots, context, layers = sizes
    least = dict(zip(("min_slots", "min_context_per_slot", "min_gpu_layers"), minima, strict=True))
    current = before = engine(steps, slots=slots, context_per_slot=context, gpu_layers=layers, shrink=least)
    for _ in range(80):
        values = less(current, failed, layers=layers)
        if values is None:
            break
        changed = current.model_copy(update=values)
        assert changed != current
        current = changed
    else:
        pytest.fail("it never ends")
    assert current.slots >= min(slots, minima[0])
    assert current.context_per_slot >= min(context, minima[1])
    assert current.gpu_layers >= min(layers, minima[2])
    if "slots" not in steps:
        assert current.slots == before.slots
    if "layers" not in steps:
        assert current.gpu_layers == before.gpu_layers


# --- the engine program ----------------------------------------------------------------------------------------------


def box(root: Path, **values: Any) -> Snapshot:
    chosen = {"slots": 4, "context_per_slot": 4096, "shrink": {"steps": ["slots", "context"]}} | values
    settings = settings_for(root, {"path": "/m.gguf"}, engine=chosen)
    snapshot = Snapshot(settings=settings, locations=locate(settings, {}))
    snapshot.locations.run.root.mkdir(parents=True, exist_ok=True)
    return snapshot


def fails(snapshot: Snapshot, line: str = OUT_OF_MEMORY, how: str = "exit status 1", pid: int = os.getpid()) -> None:
    run = snapshot.locations.run
    with run.supervisord_log.open("a") as file:
        file.write(f"2026-01-01 00:00:00,000 INFO spawned: 'engine' with pid {pid}\n")
        file.write(f"2026-01-01 00:00:00,000 WARN exited: engine ({how}; not expected)\n")
    with run.log("engine").open("a") as file:
        file.write(f"I srv  llama_server: initializing ...\nI srv    load_model: loading model '/m.gguf'\n{line}\n")


def starts(snapshot: Snapshot, header: Header) -> tuple[Any, ShrinkSteps]:
    steps = ShrinkSteps(snapshot)
    engine = steps.apply_exits().settings.engine
    steps.start(header)
    return engine, steps


def test_step_by_step(tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    snapshot, header = box(tmp_path), read_header(tiny_model)
    expected = [(4, 4096), (2, 4096), (1, 4096), (1, 2048), (1, 2048)]
    for number, values in enumerate(expected):
        engine, steps = starts(snapshot, header)
        assert (engine.slots, engine.context_per_slot) == values
        record = engine_reduction.read(snapshot.locations.run.engine_reduction)
        assert record is not None
        assert record.left == (("device", "host") if number < 3 else ())
        assert (record.pid, record.layers, record.quantisable) == (os.getpid(), 3, False)
        fails(snapshot)
    notice = steps.notice()
    assert notice is not None
    assert "slots 1 instead of 4, context_per_slot 2048 instead of 4096" in notice.message
    assert len([one for one in caplog.records if "it is started with less" in one.getMessage()]) == 3


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("error: invalid argument: --frobnicate", "exit status 1"),
        ("I srv  llama_server: model loaded", "terminated by SIGKILL"),  # a person's kill -9
        (OUT_OF_MEMORY, "terminated by SIGILL"),
    ],
)
def test_other_ends_change_nothing(tmp_path: Path, tiny_model: Path, line: str, how: str) -> None:
    snapshot, header = box(tmp_path), read_header(tiny_model)
    starts(snapshot, header)
    fails(snapshot, line, how)
    engine, steps = starts(snapshot, header)
    assert (engine.slots, steps.notice()) == (4, None)


def test_a_kill_while_the_model_is_loaded_is_the_kernels(tmp_path: Path, tiny_model: Path) -> None:
    snapshot, header = box(tmp_path), read_header(tiny_model)
    starts(snapshot, header)
    fails(snapshot, "I load_tensors: loading model tensors", "terminated by SIGKILL")
    assert starts(snapshot, header)[0].slots == 2


def test_the_end_of_another_process_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    snapshot, header = box(tmp_path), read_header(tiny_model)
    starts(snapshot, header)
    fails(snapshot, pid=os.getpid() + 1)
    assert starts(snapshot, header)[0].slots == 4


def test_one_that_ended_before_it_became_llama_server_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    """Its pid is in no record, and the log still has the end of the one before."""
    snapshot, header = box(tmp_path), read_header(tiny_model)
    starts(snapshot, header)
    fails(snapshot)
    assert ShrinkSteps(snapshot).apply_exits().settings.engine.slots == 2
    assert ShrinkSteps(snapshot).apply_exits().settings.engine.slots == 2


def test_nothing_is_written_where_nothing_may_shrink(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = box(tmp_path, shrink={"steps": []})
    engine, steps = starts(snapshot, read_header(tiny_model))
    fails(snapshot)
    assert (engine.slots, steps.notice()) == (4, None)
    assert starts(snapshot, read_header(tiny_model))[0].slots == 4
    assert not snapshot.locations.run.engine_reduction.exists()


def test_a_record_of_nonsense_is_none(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = box(tmp_path)
    snapshot.locations.run.engine_reduction.write_text('{"values": {"binary": "/bin/sh"}, "after": [], "left": []}')
    assert starts(snapshot, read_header(tiny_model))[0].slots == 4
    assert engine_reduction.read(snapshot.locations.run.engine_reduction) != replace(EngineReduction(), pid=0)
