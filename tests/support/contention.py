"""How much slower this machine is just now than it would be alone: wall time over CPU time of a fixed piece of work.

Limits like "within a second" are meant for a machine of one's own; on a shared one they are multiplied by this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def slowdown() -> float:
    """Return 1.0 on an idle machine, 3.0 where a program gets a third of a core."""
    before = os.times()
    began = time.monotonic()
    for _ in range(2):  # two at once, as an appliance's programs start beside each other
        work = [subprocess.Popen([sys.executable, "-c", "import aiohttp.web"]) for _ in range(2)]
        for process in work:
            process.wait()
    wall = time.monotonic() - began
    after = os.times()
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return max(1.0, 2 * wall / max(cpu, 0.001))
