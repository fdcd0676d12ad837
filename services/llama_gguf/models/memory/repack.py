"""Which weights llama.cpp does not use as they are in the file, but repacks into a buffer for the CPU's instructions.

Other weights are memory-mapped: the kernel reads them once per machine and can reclaim them. A repacked copy is
anonymous memory, which can only be swapped. The rules are those of the pinned llama.cpp: the order of the buffers and
what each accepts (ggml-cpu.cpp, amx/amx.cpp, repack.cpp), and which tensors are multiplied (llama-arch.cpp). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llama_gguf.cpu import Cpu
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.gguf.tensor_types import GGML_TYPES

_NOT_MULTIPLIED = re.compile(
    r"(?:token_embd|position_embd|token_types|\w*norm\w*|\w*conv\w*|rope_\w+|\w*rel_b|\w*lerp\w*|\w*_ape)\.weight$"
)
_EXPERTS = re.compile(r"\.ffn_\w+_(?:ch)?exps\.weight$")

# Values in a row must be a multiple of this, and the rows one of 32 (amx.cpp, supports_op).
_AMX_ALIGNMENT = {
    **dict.fromkeys(("q4_0", "q4_1", "q8_0"), 32),
    **dict.fromkeys(("q4_K", "q5_K", "q6_K", "iq4_xs"), 256),
    "f16": 16,
}
_AMX_MORE_BYTES = {"q8_0": 4, "q4_K": 4, "q5_K": 4, "iq4_xs": 2}  # a block (mmq.cpp, get_row_size)

# The rows must be a multiple of this (repack.cpp, ggml_repack_get_optimal_repack_type).
_AVX2_ROWS = dict.fromkeys(("q4_0", "q4_K", "iq4_nl", "mxfp4"), 8)
_AVX512_ROWS = {"q2_K": 8}
_DOTPROD_ROWS = {
    **dict.fromkeys(("q4_K", "q5_K", "q6_K"), 8),
    **dict.fromkeys(("q4_0", "q8_0", "q1_0", "iq4_nl", "mxfp4"), 4),
}
_I8MM_ROWS = {**dict.fromkeys(("q4_K", "q5_K", "q6_K"), 8), **dict.fromkeys(("q4_0", "q8_0", "q1_0"), 4)}


NO_CPU = Cpu()
"""A CPU for which nothing is repacked."""


@dataclass(frozen=True, slots=True)
class Repacked:
    """The repacked copy of one tensor: llama.cpp's name of its buffer, and its size in bytes."""

    buffer: Literal["AMX", "CPU_REPACK"]
    size: int


def repacked(tensor: Tensor, cpu: Cpu, *, as_output: bool = False) -> Repacked | None:
    """Return the repacked copy of a tensor in main memory, None if it is used as it is in the file.

    `as_output`: for the token embeddings, which some models also use as the output layer.
    """
    kind = GGML_TYPES.get(tensor.type_number)
    dimensions = [length for length in tensor.shape[2:] if length > 1]
    if kind is None or len(tensor.shape) < 2 or (_NOT_MULTIPLIED.search(tensor.name) and not as_output):
        return None
    values, rows = tensor.shape[:2]
    experts = _EXPERTS.search(tensor.name) is not None
    if not experts and _takes_amx(cpu, kind.name, values, rows):
        blocks = tensor.elements // kind.block_size
        return Repacked("AMX", tensor.byte_size + blocks * _AMX_MORE_BYTES.get(kind.name, 0))
    if rows > 1 and len(dimensions) == experts and any(rows % step == 0 for step in _row_steps(cpu, kind.name)):
        return Repacked("CPU_REPACK", tensor.byte_size)
    return None


def repacking_disabled(extra_args: Sequence[str]) -> bool:
    """Return whether llama-server's arguments disable repacking."""
    last = [argument for argument in extra_args if argument in ("--repack", "--no-repack", "-nr")][-1:]
    return last in (["--no-repack"], ["-nr"])


def _takes_amx(cpu: Cpu, kind: str, values: int, rows: int) -> bool:
    alignment = _AMX_ALIGNMENT.get(kind)
    supported = {"amx_int8", "avx512_vnni"} <= cpu.flags
    return supported and alignment is not None and values % alignment == 0 and rows % 32 == 0


def _row_steps(cpu: Cpu, kind: str) -> list[int]:
    """Return the numbers of rows whose multiples can be repacked."""
    tables = {"avx2": _AVX2_ROWS, "avx512f": _AVX512_ROWS, "asimddp": _DOTPROD_ROWS, "i8mm": _I8MM_ROWS}
    return [table[kind] for flag, table in tables.items() if flag in cpu.flags and kind in table]
