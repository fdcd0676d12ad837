"""Which tensors are repacked for which processor: llama.cpp's rules, for processors that this machine has not."""

from __future__ import annotations

import pytest

from llama_gguf.cpu import Cpu
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.gguf.tensor_types import GGML_TYPES
from llama_gguf.models.memory.repack import NO_CPU, Repacked, repacked, repacking_disabled

NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}
AMX = Cpu(frozenset(("avx2", "avx512f", "avx512_vnni", "amx_int8")))
AVX512 = Cpu(frozenset(("avx2", "avx512f", "avx512_vnni")))
AVX2 = Cpu(frozenset(("avx2",)))
DOTPROD = Cpu(frozenset(("asimd", "asimddp")))
I8MM = Cpu(frozenset(("asimd", "asimddp", "i8mm")))


def tensor(kind: str, *shape: int, name: str = "blk.0.ffn_up.weight") -> Tensor:
    return Tensor(name, shape, NUMBERS[kind], 0)


def buffers(kind: str, *shape: int, name: str = "blk.0.ffn_up.weight") -> list[str | None]:
    """Return the buffer on each of AMX, AVX-512, AVX2, Arm with dot products and with matrix products."""
    found = [repacked(tensor(kind, *shape, name=name), cpu) for cpu in (AMX, AVX512, AVX2, DOTPROD, I8MM)]
    return [copy.buffer if copy else None for copy in found]


R = "CPU_REPACK"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("q4_0", ["AMX", R, R, R, R]),
        ("q4_1", ["AMX", None, None, None, None]),
        ("q5_0", [None] * 5),
        ("q8_0", ["AMX", None, None, R, R]),
        ("q2_K", [R, R, None, None, None]),
        ("q3_K", [None] * 5),
        ("q4_K", ["AMX", R, R, R, R]),
        ("q5_K", ["AMX", None, None, R, R]),
        ("q6_K", ["AMX", None, None, R, R]),
        ("iq4_xs", ["AMX", None, None, None, None]),
        ("iq4_nl", [R, R, R, R, R]),
        ("mxfp4", [R, R, R, R, R]),
        ("q1_0", [None, None, None, R, R]),
        ("f16", ["AMX", None, None, None, None]),
        ("bf16", [None] * 5),
        ("f32", [None] * 5),
    ],
)
def test_types(kind: str, expected: list[str | None]) -> None:
    assert buffers(kind, 512, 64) == expected


def test_rows_have_to_be_a_multiple() -> None:
    assert buffers("q4_K", 512, 72) == [R, R, R, R, R]
    assert buffers("q4_K", 512, 68) == [None] * 5
    assert buffers("q4_0", 512, 68) == [None, None, None, R, R]
    assert buffers("q4_0", 512, 66) == [None] * 5
    assert buffers("f16", 24, 64) == [None] * 5


def test_experts_are_repacked_but_not_for_amx() -> None:
    name = "blk.3.ffn_down_exps.weight"
    assert buffers("q4_K", 512, 64, 8, name=name) == [R, R, R, R, R]
    assert buffers("q4_1", 512, 64, 8, name=name) == [None] * 5
    assert buffers("q4_K", 512, 64, 1, name=name) == [None] * 5


@pytest.mark.parametrize(
    "name",
    [
        "token_embd.weight",
        "per_layer_token_embd.weight",
        "position_embd.weight",
        "token_types.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.ssm_conv1d.weight",
        "blk.0.shortconv.conv.weight",
        "blk.0.attn_rel_b.weight",
    ],
)
def test_what_is_not_multiplied_stays(name: str) -> None:
    assert buffers("q4_0", 512, 64, name=name) == [None] * 5


@pytest.mark.parametrize("name", ["output.weight", "blk.0.attn_q.weight", "blk.0.shortconv.in_proj.weight"])
def test_what_is_multiplied_goes(name: str) -> None:
    assert buffers("q4_0", 512, 64, name=name) == ["AMX", R, R, R, R]


def test_embeddings_that_are_the_output_too_are_copied() -> None:
    embeddings = tensor("q4_K", 512, 64, name="token_embd.weight")
    assert repacked(embeddings, AVX2) is None
    assert repacked(embeddings, AVX2, as_output=True) == Repacked("CPU_REPACK", embeddings.byte_size)


@pytest.mark.parametrize(("kind", "block"), [("q4_0", 18), ("q4_1", 20), ("q8_0", 38), ("q5_K", 180), ("iq4_xs", 138)])
def test_amx_adds_to_some_blocks(kind: str, block: int) -> None:
    blocks = 512 * 64 // GGML_TYPES[NUMBERS[kind]].block_size
    assert repacked(tensor(kind, 512, 64), AMX) == Repacked("AMX", blocks * block)


def test_amx_needs_its_companion() -> None:
    assert repacked(tensor("q4_1", 512, 64), Cpu(frozenset(("avx2", "amx_int8")))) is None


def test_vectors_unknown_types_and_unknown_processors_stay() -> None:
    assert repacked(tensor("q4_0", 512), AMX) is None
    assert repacked(Tensor("output.weight", (512, 64), 9999, 0), AMX) is None
    assert repacked(tensor("q4_0", 512, 64), NO_CPU) is None


@pytest.mark.parametrize(
    ("arguments", "off"),
    [((), False), (("--no-repack",), True), (("-nr",), True), (("-nr", "--repack"), False), (("x", "-nr"), True)],
)
def test_switched_off(arguments: tuple[str, ...], off: bool) -> None:
    assert repacking_disabled(arguments) == off
