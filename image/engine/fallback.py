"""Which part of a CPU's instructions to leave out after an engine that was built for them has failed. Pure.

One's own build uses everything the CPU has. Where that crashes or computes nonsense (a compiler's fault, a hypervisor
that names what it does not let through), a slower engine is worth more than none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fallback:
    """One feature to build without: its name, the CPU flag that says it is there, and how to leave it out.

    `extra_buffers` are the features that work on weights laid out anew, which llama-server can be told not to do.
    """

    name: str
    cpu_flag: str = ""
    compiler_flags: tuple[str, ...] = ()
    cmake: tuple[str, ...] = ()
    extra_buffers: bool = False


# From what is left out first to last. An option to leave out beats -march=native, whatever their order.
_AMX = Fallback("AMX", "amx_tile", ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"), extra_buffers=True)
_REPACKING = Fallback("repacked weights", "", (), ("-DGGML_CPU_REPACK=OFF",), extra_buffers=True)
_AVX512 = Fallback("AVX-512", "avx512f", (*_AMX.compiler_flags, "-mno-avx512f"))
_AVX = Fallback("AVX", "avx", (*_AVX512.compiler_flags, "-mno-avx"))
_ARM = Fallback("optional instructions", "asimddp", (), ("-DGGML_NATIVE=OFF",))
FALLBACKS = (_AMX, _REPACKING, _AVX512, _AVX, _ARM)


def choose(
    cpu_flags: Collection[str], tried: Collection[Fallback], *, works_without_extra_buffers: bool
) -> Fallback | None:
    """Return what to leave out next, or None where nothing is left.

    `cpu_flags` as the kernel lists them; `works_without_extra_buffers` is whether the engine that failed is right when
    it leaves weights as they are, which tells whose fault it was.
    """
    for fallback in FALLBACKS:
        if fallback in tried or (fallback.cpu_flag and fallback.cpu_flag not in cpu_flags):
            continue
        if fallback.extra_buffers == works_without_extra_buffers:
            return fallback
    return None
