"""Has the C library give memory back. Bodies are large and live for seconds, and the gateway lives for months.

glibc raises the size from which it maps memory apart with each large block that is freed, up to 32 MiB; smaller ones
lie in a heap that cannot shrink below its last block. With a fixed threshold each body is returned as it is freed.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MAPPED_FROM_BYTES = 262_144
_TRIMMED_FROM_BYTES = 1_048_576


def return_freed_memory() -> bool:
    """Fix the thresholds of this process; return whether its C library has them (glibc)."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    mapped = set_option(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    trimmed = set_option(_M_TRIM_THRESHOLD, _TRIMMED_FROM_BYTES)
    return bool(mapped and trimmed)
