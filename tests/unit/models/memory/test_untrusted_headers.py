"""Headers with random damage, from the file to the plan: an answer that makes sense or a ModelError, never more.

Damaged in two ways, each with fixed seeds: bytes anywhere, and values that have another type or an absurd size.
"""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.facts import facts_of
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.local_files import check_model
from llama_gguf.models.memory.estimate import Weights
from llama_gguf.models.memory.plan import Machine, plan_memory
from llama_gguf.settings.sections.engine import Engine

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
BYTES, TYPES, STEPS = 4000, 1500, 4  # mutations of each kind; seeds are spread over the tests
MOST_SECONDS, MOST_BYTES = 1.0, 64 << 20  # for one header: a hundred times what it takes


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind: int, content: bytes) -> bytes:
    return struct.pack("<I", kind) + content


def u32(number: int) -> bytes:
    return value(U32, struct.pack("<I", number))


def array(kind: int, count: int, content: bytes) -> bytes:
    return value(ARRAY, struct.pack("<IQ", kind, count) + content)


FAMILIES: dict[str, dict[str, bytes]] = {
    "llama": {"expert_count": u32(8), "expert_used_count": u32(2), "attention.head_count_kv": u32(2)},
    "gemma3": {"attention.sliding_window": u32(512), "attention.sliding_window_pattern": u32(6)},
    "gemma4": {
        "attention.sliding_window": u32(512),
        "attention.sliding_window_pattern": array(BOOL, 4, b"\1\0\1\0"),
        "attention.shared_kv_layers": u32(1),
    },
    "nemotron_h": {
        "attention.head_count_kv": array(I32, 4, struct.pack("<4i", 0, 2, 0, 0)),
        "feed_forward_length": array(I32, 4, struct.pack("<4i", 0, 0, 128, 0)),
        "ssm.conv_kernel": u32(4),
        "ssm.inner_size": u32(128),
        "ssm.state_size": u32(16),
        "ssm.group_count": u32(1),
    },
    "qwen3next": {
        "nextn_predict_layers": u32(1),
        "attention.recurrent_layers": array(BOOL, 4, b"\1\1\0\0"),
        "ssm.conv_kernel": u32(4),
        "ssm.inner_size": u32(128),
        "ssm.state_size": u32(16),
    },
    "deepseek2": {"attention.key_length_mla": u32(24), "attention.key_length": u32(48)},
    "rwkv7": {"wkv.head_size": u32(16), "token_shift_count": u32(2)},
}


def pairs_of(family: str) -> dict[str, bytes]:
    common = {
        "block_count": u32(4),
        "context_length": u32(2048),
        "embedding_length": u32(64),
        "attention.head_count": u32(4),
        "feed_forward_length": u32(128),
    }
    named = {f"{family}.{key}": content for key, content in (common | FAMILIES[family]).items()}
    tokens = array(STRING, 3, string("<s>") + string("</s>") + string("a"))
    return {"general.architecture": value(STRING, string(family)), **named, "tokenizer.ggml.tokens": tokens}


def written(pairs: dict[str, bytes]) -> bytes:
    names = ["token_embd.weight", "output_norm.weight"]
    names += [f"blk.{layer}.{part}.weight" for layer in range(4) for part in ("attn_q", "ffn_up", "ffn_down_exps")]
    table, offset = b"", 0
    for name in names:
        table += string(name) + struct.pack("<IQQIQ", 2, 64, 3, 0, offset)
        offset += 64 * 3 * 4
    head = b"GGUF" + struct.pack("<IQQ", 3, len(names), len(pairs))
    body = head + b"".join(string(key) + content for key, content in pairs.items()) + table
    return body + b"\0" * (-len(body) % 32)


def damaged_bytes(step: int) -> Iterator[bytes]:
    source = random.Random(step)
    bodies = [written(pairs_of(family)) for family in FAMILIES]
    for _ in range(BYTES // STEPS):
        body = bytearray(source.choice(bodies))
        for _ in range(source.randint(1, 6)):
            body[source.randrange(len(body))] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        yield bytes(body)


def absurd(source: random.Random) -> bytes:
    """Return a value of any type, more often than not one that no model has."""
    numbers = (0, 1, 2, 511, 512, 513, 2_000_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    floats = (float("nan"), float("inf"), float("-inf"), -8.0, 0.5, 3e38)
    one = source.choice(numbers)
    few = source.choice((0, 1, 3, 4, 5, 512, 4097))
    return source.choice(
        (
            u32(one),
            value(I32, struct.pack("<i", source.choice((-8, -1, -(1 << 31), 7)))),
            value(F32, struct.pack("<f", source.choice(floats))),
            value(12, struct.pack("<d", float("nan"))),
            value(BOOL, source.choice((b"\0", b"\1", b"\xff"))),
            value(U64, struct.pack("<Q", source.choice((1 << 40, (1 << 64) - 1)))),
            value(11, struct.pack("<q", -(1 << 63))),
            value(STRING, string(source.choice(("", "8", "llama", "\udcff".encode("utf-8", "replace").decode())))),
            array(U32, few, struct.pack("<I", one) * few),
            array(I32, few, struct.pack("<i", -8) * few),
            array(F32, few, struct.pack("<f", source.choice(floats)) * few),
            array(BOOL, few, b"\1" * few),
            array(STRING, few, string("x") * few),
        )
    )


def damaged_types(step: int) -> Iterator[bytes]:
    source = random.Random(100 + step)
    for _ in range(TYPES // STEPS):
        pairs = pairs_of(source.choice(list(FAMILIES)))
        for _ in range(source.randint(1, 2)):
            pairs[source.choice(list(pairs))] = absurd(source)
        yield written(pairs)


def use(path: Path) -> None:
    """Do with the file whatever `check`, `plan` and `up` do."""
    header = read_header(path)
    facts_of(header)
    check_model(path, "model", "model")
    model = Weights(header.tensors, read_architecture(header))
    for engine in (Engine(), Engine(context_per_slot=0, flash_attention="off", slots=3, task="embed")):
        for machine in (Machine(0, 1 << 40), Machine(8 << 30, None)):
            plan = plan_memory(model, engine, machine, draft=model)
            for item in plan.items:
                assert min(item.device, item.host, item.mapped) >= 0, item
            assert plan.context_per_slot > 0
            assert 1 <= plan.layers <= 513


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("damage", [damaged_bytes, damaged_types])
def test_an_answer_or_a_model_error(damage: object, step: int, tmp_path: Path) -> None:
    assert callable(damage)
    path = tmp_path / "m.gguf"
    answers, refused = 0, []
    tracemalloc.start()
    try:
        for body in damage(step):
            path.write_bytes(body + b"\0" * 12_000)
            started = time.thread_time()
            tracemalloc.reset_peak()
            try:
                use(path)
                answers += 1
            except ModelError as error:
                refused.append(error.message)
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
            assert time.thread_time() - started < MOST_SECONDS
    finally:
        tracemalloc.stop()
    assert answers > 20, "damage that is always fatal shows nothing about the plan"
    assert len(refused) > 100
    assert all(str(path) in message and len(message) < 2000 for message in refused)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_whole_has_an_answer(family: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(written(pairs_of(family)) + b"\0" * 12_000)
    use(path)
