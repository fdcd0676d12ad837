"""Lets a program under test find itself on another CPU: that of the file in PYTHON_TEST_CPUINFO, an x86_64.

On PYTHONPATH for tests that need a certain CPU whatever the machine is; the name of the variable is one that `up` hands
on to its programs.
"""

from __future__ import annotations

import os
from pathlib import Path

if file := os.environ.get("PYTHON_TEST_CPUINFO"):
    from llama_gguf.engine import variant_choice

    machine = variant_choice.HostCpu("x86_64", Path(file).read_text(encoding="utf-8"))
    variant_choice.this_machine = lambda: machine
