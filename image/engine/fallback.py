"""Which CPU feature to disable after an engine that was built with it has failed. Pure.

The native build uses all features of the CPU. Where that crashes or gives wrong results (a compiler bug, a hypervisor
that lists a feature but does not support it), a slower engine is better than none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fallback:
    """One feature to disable: its name, the CPU flag that it needs, and the flags that disable it.

    `extra_buffers` are the features that use repacked weights, which llama-server's `--no-repack` disables.
    """

    name: str
    cpu_flag: str = ""
    compiler_flags: tuple[str, ...] = ()
    cmake: tuple[str, ...] = ()
    extra_buffers: bool = False


# In the order in which they are disabled. -mno-FEATURE overrides -march=native, whatever their order.
_AMX = Fallback("AMX", "amx_tile", ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"), extra_buffers=True)
_REPACKING = Fallback("repacked weights", "", (), ("-DGGML_CPU_REPACK=OFF",), extra_buffers=True)
_AVX512 = Fallback("AVX-512", "avx512f", (*_AMX.compiler_flags, "-mno-avx512f"))
_AVX = Fallback("AVX", "avx", (*_AVX512.compiler_flags, "-mno-avx"))
_ARM = Fallback("optional instructions", "asimddp", (), ("-DGGML_NATIVE=OFF",))
FALLBACKS = (_AMX, _REPACKING, _AVX512, _AVX, _ARM)


def choose(
    cpu_flags: Collection[str], tried: Collection[Fallback], *, works_without_extra_buffers: bool
) -> Fallback | None:
    """Return what to disable next, None where nothing is left.

    `cpu_flags` as the kernel lists them; `works_without_extra_buffers` says whether the failed engine passes with
    `--no-repack`, and so which group of features failed.
    """
    for fallback in FALLBACKS:
        if fallback in tried or (fallback.cpu_flag and fallback.cpu_flag not in cpu_flags):
            continue
        if fallback.extra_buffers == works_without_extra_buffers:
            return fallback
    return None
