"""The CPU flags that the memory plan counts with are those of the variant that runs."""

from __future__ import annotations

import pytest

from llama_gguf.engine.auto import machine
from llama_gguf.engine.auto.machine import usable_cpu
from llama_gguf.engine.variant_choice import HostCpu
from llama_gguf.models.memory.repack import NO_CPU
from llama_gguf.rundir.engine_variant import EngineVariant

INFO = "model name: Xeon\nflags: sse4_2 avx avx2 f16c fma bmi2 avx512f avx512vl\n"


def test_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda: HostCpu("x86_64", INFO))
    whole = usable_cpu(None)
    assert "avx2" in whole.flags
    assert usable_cpu(EngineVariant("no-such")) == whole
    plain = usable_cpu(EngineVariant("x64"))
    assert plain.flags < whole.flags
    monkeypatch.setattr(machine, "this_machine", lambda: HostCpu("x86_64", ""))
    assert usable_cpu(None) == NO_CPU
