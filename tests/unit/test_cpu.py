"""What is read of /proc/cpuinfo; the texts of real machines are in the tests of the CPU variants."""

from __future__ import annotations

from llama_gguf.cpu import Cpu, read_cpu


def test_flags_are_those_of_the_line_of_that_name_alone() -> None:
    intel = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 amx_int8\nvmx flags\t: vnmi\n\nprocessor\t: 1\n"
    assert read_cpu(intel) == Cpu(frozenset(("fpu", "avx2", "amx_int8")), "X")
    assert read_cpu("processor\t: 0\nFeatures\t: fp asimddp\nCPU part\t: 0xd0c\n") == Cpu(
        frozenset(("fp", "asimddp")), "0xd0c"
    )
    assert read_cpu("") is None
