"""Small models with random weights of each type, for proving an engine: only the standard library.

No quantiser is needed: nearly every bit pattern of a quantised block is valid, so blocks are random bytes with fixed
scales. The bytes are SHAKE-256 of the tensor's name, so the models are reproducible. The block layouts are
ggml's (ggml-common.h); `gguf` reads them back in a test.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

VOCABULARY = 96  # rows of the output: a multiple of 32, which the AMX kernels require
WIDTH, FEED_FORWARD, LAYERS, HEADS, KV_HEADS = 256, 512, 2, 4, 2  # widths are multiples of the longest block, 256
CONTEXT = 256
_ALIGNMENT = 32
_F32 = 0
_U32, _FLOAT, _STRING, _ARRAY, _I32 = 4, 6, 8, 9, 5  # GGUF's value types


@dataclass(frozen=True, slots=True)
class WeightType:
    """How weights of one type are generated: blocks of `block_bytes` random bytes with `patches` written over each.

    A patch is an offset in the block and the bytes to write there. `keep` and `put` are masks over each whole block for
    types without a scale (plain numbers). Chosen so that weights have a mean near 0 and a deviation near 0.08.
    """

    name: str
    ggml_type: int
    block_size: int
    block_bytes: int
    patches: tuple[tuple[int, bytes], ...] = ()
    keep: bytes = b""
    put: bytes = b""
    alternate: bool = False  # the scale's sign alternates by block, where the mean of the quants is not 0


def _f16(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def _scaled(
    name: str, number: int, size: int, length: int, *patches: tuple[int, bytes], alternate: bool = False
) -> WeightType:
    return WeightType(name, number, size, length, patches, alternate=alternate)


_IQ1_M_SCALE = 0x217A  # 0.0107 as a half: its four nibbles are the upper ones of four words

WEIGHT_TYPES = (
    WeightType("F32", 0, 1, 4, keep=b"\xff\xff\x7f\x80", put=b"\x00\x00\x80\x3d"),
    WeightType("F16", 1, 1, 2, keep=b"\xff\x83", put=b"\x00\x2c"),
    WeightType("BF16", 30, 1, 2, keep=b"\x7f\x80", put=b"\x80\x3d"),
    _scaled("Q4_0", 2, 32, 18, (0, _f16(0.0174)), alternate=True),
    _scaled("Q4_1", 3, 32, 20, (0, _f16(0.0174, -7.5 * 0.0174))),
    _scaled("Q5_0", 6, 32, 22, (0, _f16(0.0087)), alternate=True),
    _scaled("Q5_1", 7, 32, 24, (0, _f16(0.0087, -15.5 * 0.0087))),
    _scaled("Q8_0", 8, 32, 34, (0, _f16(0.00108))),
    _scaled("Q2_K", 10, 256, 84, (80, _f16(0.0058, 0.0087))),
    _scaled("Q3_K", 11, 256, 110, (108, _f16(0.00186))),
    _scaled("Q4_K", 12, 256, 144, (0, _f16(0.00031, 7.5 * 0.00031))),
    _scaled("Q5_K", 13, 256, 176, (0, _f16(0.000152, 15.5 * 0.000152))),
    _scaled("Q6_K", 14, 256, 210, (208, _f16(2.0**-14))),
    _scaled("IQ4_NL", 20, 32, 18, (0, _f16(0.0011))),
    _scaled("IQ4_XS", 23, 256, 136, (0, _f16(2.0**-14))),
    _scaled("IQ3_XXS", 18, 256, 98, (0, _f16(0.00057))),
    _scaled("IQ3_S", 21, 256, 110, (0, _f16(0.00054))),
    _scaled("IQ2_XXS", 16, 256, 66, (0, _f16(0.0014))),
    _scaled("IQ2_XS", 17, 256, 74, (0, _f16(0.0014))),
    _scaled("IQ2_S", 22, 256, 82, (0, _f16(0.0014))),
    _scaled("IQ1_S", 19, 256, 50, (0, _f16(0.0107))),
    _scaled("IQ1_M", 29, 256, 56, *((49 + 2 * i, bytes([(_IQ1_M_SCALE >> 4 * i & 15) << 4])) for i in range(4))),
    _scaled("MXFP4", 39, 32, 17, (0, b"\x7a")),
    _scaled("TQ1_0", 34, 256, 54, (52, _f16(0.1))),
    _scaled("TQ2_0", 35, 256, 66, (64, _f16(0.07)), alternate=True),
)
"""Every weight type of published models that the CPU backend has kernels for."""


def weights(kind: WeightType, name: str, elements: int) -> bytes:
    """Return the data of the tensor `name` with that many elements (a multiple of the block size)."""
    blocks = elements // kind.block_size
    size = blocks * kind.block_bytes
    data = hashlib.shake_256(f"{kind.name} {name}".encode()).digest(size)
    if kind.keep:
        number = int.from_bytes(data, "little") & int.from_bytes(kind.keep * blocks, "little")
        return (number | int.from_bytes(kind.put * blocks, "little")).to_bytes(size, "little")
    block = bytearray(data)
    for offset, patch in kind.patches:
        for index, byte in enumerate(patch):
            block[offset + index :: kind.block_bytes] = bytes([byte]) * blocks
        if kind.alternate:
            sign = offset + 1  # the upper byte of a half
            block[sign :: 2 * kind.block_bytes] = bytes([patch[1] ^ 0x80]) * -(-blocks // 2)
    return bytes(block)


def _shapes() -> Iterable[tuple[str, int, int]]:
    """Yield name, inputs and outputs of every matrix of the type under test."""
    yield "output.weight", WIDTH, VOCABULARY
    head = WIDTH // HEADS
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_q.weight", WIDTH, WIDTH
        yield f"blk.{layer}.attn_k.weight", WIDTH, head * KV_HEADS
        yield f"blk.{layer}.attn_v.weight", WIDTH, head * KV_HEADS
        yield f"blk.{layer}.attn_output.weight", WIDTH, WIDTH
        yield f"blk.{layer}.ffn_gate.weight", WIDTH, FEED_FORWARD
        yield f"blk.{layer}.ffn_up.weight", WIDTH, FEED_FORWARD
        yield f"blk.{layer}.ffn_down.weight", FEED_FORWARD, WIDTH


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    match value:
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _FLOAT, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case list():
            kind, encode = _ELEMENTS[type(value[0])]
            return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(map(encode, value))
        case _:
            raise TypeError(f"no GGUF value: {value!r}")


_ELEMENTS: dict[type, tuple[int, Callable[..., bytes]]] = {
    str: (_STRING, _string),
    float: (_FLOAT, lambda number: struct.pack("<f", number)),
    int: (_I32, lambda number: struct.pack("<i", number)),
}


def _metadata() -> dict[str, object]:
    special = ["<unk>", "<s>", "</s>", "<0x0A>"]
    normal = 1
    return {
        "general.architecture": "llama",
        "general.name": "proof",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*special, *(f"w{index}" for index in range(VOCABULARY - len(special)))],
        "tokenizer.ggml.scores": [0.0] * VOCABULARY,
        "tokenizer.ggml.token_type": [2, 3, 3, 6, *([normal] * (VOCABULARY - len(special)))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def model(kind: WeightType) -> bytes:
    """Return a whole GGUF file, about a megabyte: a llama whose matrices are of `kind`, with norms and input in F32."""
    plain = WEIGHT_TYPES[0]
    ones = struct.pack("<f", 1.0) * WIDTH
    tensors: list[tuple[str, tuple[int, ...], int, bytes]] = [
        ("token_embd.weight", (WIDTH, VOCABULARY), _F32, weights(plain, "token_embd", WIDTH * VOCABULARY))
    ]
    norms = ["output_norm.weight"]
    norms += [f"blk.{layer}.{part}_norm.weight" for layer in range(LAYERS) for part in ("attn", "ffn")]
    tensors += [(name, (WIDTH,), _F32, ones) for name in norms]
    for name, inputs, outputs in _shapes():
        tensors.append((name, (inputs, outputs), kind.ggml_type, weights(kind, name, inputs * outputs)))
    metadata = _metadata()
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_string(key) + _value(value) for key, value in metadata.items())
    body = b""
    for name, shape, number, data in tensors:
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, len(body))
        body += data + bytes(-len(data) % _ALIGNMENT)
    return head + bytes(-len(head) % _ALIGNMENT) + body
