"""The variants of ggml's CPU code, and which of them a CPU supports. Pure: the text of /proc/cpuinfo in, names out.

ggml itself chooses by CPUID, which also reports features that the system has not enabled (llama.cpp issue 28328); the
kernel's flags omit those. Names, features and order are those of ggml's CMakeLists.txt and cpu-feats.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Table = Mapping[str, frozenset[str]]
"""Variant -> the features that it uses, by ggml's names."""


@dataclass(frozen=True, slots=True)
class Feature:
    """An instruction set: the kernel's flags for it, and its weight in ggml's score."""

    flags: frozenset[str]
    weight: int


def _feature(flags: str, weight: int) -> Feature:
    return Feature(frozenset(flags.split()), weight)


FEATURES: Mapping[str, Feature] = {
    "FMA": _feature("fma", 1 << 0),
    "F16C": _feature("f16c", 1 << 1),
    "SSE42": _feature("sse4_2", 1 << 2),
    "BMI2": _feature("bmi2", 1 << 3),
    "AVX": _feature("avx", 1 << 4),
    "AVX2": _feature("avx2", 1 << 5),
    "AVX_VNNI": _feature("avx_vnni", 1 << 6),
    "AVX512": _feature("avx512f avx512cd avx512vl avx512dq avx512bw", 1 << 7),
    "AVX512_VBMI": _feature("avx512vbmi", 1 << 8),
    "AVX512_BF16": _feature("avx512_bf16", 1 << 9),
    "AVX512_VNNI": _feature("avx512_vnni", 1 << 10),
    "AMX_TILE": _feature("amx_tile", 0),
    "AMX_INT8": _feature("amx_int8", 1 << 11),
    "DOTPROD": _feature("asimddp", 1 << 1),
    "FP16_VECTOR_ARITHMETIC": _feature("fphp asimdhp", 1 << 2),
    "SVE": _feature("sve", 1 << 3),
    "MATMUL_INT8": _feature("i8mm", 1 << 4),
    "SVE2": _feature("sve2", 1 << 5),
    "SME": _feature("sme", 1 << 6),
}


def _table(text: str) -> Table:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: frozenset(features) for name, *features in rows}


X86_64 = _table("""
x64
sse42           SSE42
sandybridge     SSE42 AVX
ivybridge       SSE42 AVX F16C
piledriver      SSE42 AVX F16C FMA
haswell         SSE42 AVX F16C FMA AVX2 BMI2
skylakex        SSE42 AVX F16C FMA AVX2 BMI2 AVX512
cannonlake      SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VBMI
cascadelake     SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VNNI
icelake         SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VBMI AVX512_VNNI
cooperlake      SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VNNI AVX512_BF16
zen4            SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16
alderlake       SSE42 AVX F16C FMA AVX2 BMI2 AVX_VNNI
sapphirerapids  SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16 AMX_TILE AMX_INT8
""")
AARCH64 = _table("""
armv8.0_1
armv8.2_1  DOTPROD
armv8.2_2  DOTPROD FP16_VECTOR_ARITHMETIC
armv8.2_3  DOTPROD FP16_VECTOR_ARITHMETIC SVE
armv8.6_1  DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8
armv8.6_2  DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8 SVE2
armv9.2_1  DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8 SME
armv9.2_2  DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8 SVE2 SME
""")
TABLES: Mapping[str, Table] = {"x86_64": X86_64, "aarch64": AARCH64}
"""Machine, as named by uname -> its variants."""


def supported(table: Table, flags: frozenset[str]) -> tuple[str, ...]:
    """Return the variants of `table` that a CPU with `flags` supports, best first, as ggml ranks them."""
    found = (name for name in table if not missing(table, name, flags))
    return tuple(sorted(found, key=lambda name: -score(table[name])))


def missing(table: Table, name: str, flags: frozenset[str]) -> list[str]:
    """Return the flags that the variant needs and the CPU lacks."""
    return sorted(_flags(table[name]) - flags)


def score(features: Iterable[str]) -> int:
    """Return ggml's score of a variant on a CPU that supports it."""
    return 1 + sum(FEATURES[feature].weight for feature in features)


def _flags(features: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(FEATURES[feature].flags for feature in features))


def usable_flags(table: Table, name: str, flags: frozenset[str]) -> frozenset[str]:
    """Return `flags` without those of ggml's features that the variant does not use."""
    known = _flags(FEATURES)
    return flags - (known - _flags(table[name]))
