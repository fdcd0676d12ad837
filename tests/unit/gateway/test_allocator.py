"""Memory of bodies that are gone is given back."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from llama_gguf.gateway.allocator import return_freed_memory

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

assert return_freed_memory()
before = resident()
bodies = []
for _ in range(8):
    parts = [bytes(262_144) for _ in range(40)]
    bodies.append(b"".join(parts))
    bodies.append([bytes(100) for _ in range(50)])  # what else comes and stays in between
held = resident() - before
kept = bodies[1::2]
del bodies, parts
print(held, resident() - before)
"""


def test_what_bodies_took_is_returned_while_smaller_things_stay() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held > 70_000
    assert left < 8_000, f"{left} KiB stay of {held}"
