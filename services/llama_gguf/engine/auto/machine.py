"""The CPU as the engine's code uses it, for the memory plan."""

from __future__ import annotations

import dataclasses

from llama_gguf.cpu import Cpu, read_cpu
from llama_gguf.engine.cpu_variants import usable_flags
from llama_gguf.engine.variant_choice import this_machine
from llama_gguf.models.memory.repack import NO_CPU
from llama_gguf.rundir.engine_variant import EngineVariant


def usable_cpu(variant: EngineVariant | None) -> Cpu:
    """Return the CPU flags that the engine's CPU code uses on this machine; none if the kernel does not report them."""
    here = this_machine()
    cpu = read_cpu(here.cpuinfo) or NO_CPU
    if variant is None or variant.variant not in here.table:
        return cpu
    return dataclasses.replace(cpu, flags=usable_flags(here.table, variant.variant, cpu.flags))
