"""What the models need, what they may use together, and what a loaded one really uses.

The plan is made by a process of its own (`python -m llama_gguf.cli.model_sizes`): it reads the headers of all models
and asks llama-server for its devices, which would make the gateway larger and later.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_gguf.logs import fields

_log = logging.getLogger(__name__)

_PLAN_SECONDS = 120.0
_QUERY_SECONDS = 5.0
_ANONYMOUS = re.compile(r"^Rss(?:Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """Bytes on GPUs and in main memory: those of all models together, None = not known; and of each model's program.

    A model that is not listed could not be planned: `problems` says why.
    """

    device: int | None = None
    host: int | None = None
    models: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


async def plan_memory() -> PlannedMemory:
    """Return the plan for the appliance of this process; without one, that nothing is known."""
    command = (sys.executable, "-P", "-m", "llama_gguf.cli.model_sizes")
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:  # no memory or no process left
        return _no_plan(str(error))
    try:
        async with asyncio.timeout(_PLAN_SECONDS):
            output, errors = await process.communicate()
        return read_plan(output)
    except (TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = errors.decode("utf-8", "replace")[-500:] if process.returncode else repr(error)
        return _no_plan(reason)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _no_plan(reason: str) -> PlannedMemory:
    _log.error("the models' memory could not be planned; there is no budget", extra=fields(reason=reason))
    return PlannedMemory()


def read_plan(output: bytes) -> PlannedMemory:
    """Return what the process has printed. Raises ValueError, KeyError, TypeError or AttributeError."""
    found = json.loads(output)
    return PlannedMemory(
        found["device_bytes"],
        found["host_bytes"],
        {program: (one["device"], one["host"]) for program, one in found["models"].items()},
        found["problems"],
    )


def measure(pid: int, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return the bytes that a process uses on GPUs, and those of main memory that the kernel cannot reclaim.

    0 where that cannot be found out. Blocks for as long as nvidia-smi takes.
    """
    try:
        status = (proc / str(pid) / "status").read_text()
    except OSError:
        status = ""
    host = sum(int(size) for size in _ANONYMOUS.findall(status)) * 1024
    return _gpu_bytes(pid), host


def _gpu_bytes(pid: int) -> int:
    tool = shutil.which("nvidia-smi", path=os.environ.get("PATH"))
    if tool is None:
        return 0
    command = (tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    rows = (line.split(",") for line in done.stdout.splitlines())
    return sum(int(row[1]) << 20 for row in rows if row[0].strip() == str(pid) and row[1].strip().isdigit())
