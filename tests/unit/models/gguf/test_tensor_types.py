"""The table of tensor types."""

from __future__ import annotations

import gguf

from llama_gguf.models.gguf.tensor_types import GGML_TYPES


def test_the_table_of_types_is_ggufs() -> None:
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (kind.block_size, kind.block_bytes) for number, kind in GGML_TYPES.items()}
    theirs[9] = (32, 36)  # gguf says 40; ggml-common.h asserts 2 halves + 32 bytes
    ours.pop(42)  # q2_0 is in ggml.h and not yet in gguf
    assert ours == theirs
    assert {number: kind.name.upper() for number, kind in GGML_TYPES.items() if number != 42} == {
        int(kind): kind.name.upper() for kind in gguf.GGML_QUANT_SIZES
    }
