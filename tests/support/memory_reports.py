"""What llama-server says of its memory: what it projects before a load, and the sizes of the buffers that it made."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_gguf.engine.tuning import speculation
from llama_gguf.settings.sections.engine import Engine

Projected = dict[str, tuple[int, int, int]]
"""By names of buffers: MiB of weights, context, compute buffers."""

_ROW = re.compile(r"- (?P<buffer>\S+)\s+\|\s+\d+ =\s+(\d+) \+\s+(\d+) \+\s+(\d+)")
_BUFFER = re.compile(r"\S+ (KV|RS|compute) buffer size =\s+([\d.]+) MiB")
_READY = "model loaded"


@contextmanager
def running(binary: Path, model: Path, socket: Path, engine: Engine) -> Iterator[Iterator[str]]:
    """Run llama-server with the settings that decide about memory, and yield its log."""
    socket.unlink(missing_ok=True)
    context, slots = engine.context_per_slot, engine.slots
    assert isinstance(context, int)
    assert isinstance(slots, int)
    argv = [
        *(str(binary), "-m", str(model), "--host", str(socket), "--offline", "-lv", "4", "--log-colors", "off"),
        *("-c", str(context * slots), "-np", str(slots)),
        *("-b", str(engine.batch_size), "-ub", str(engine.ubatch_size), "-fa", engine.flash_attention),
        *("-ctk", engine.cache_type_k, "-ctv", engine.cache_type_v, "--fit", "on", "--no-warmup", *engine.extra_args),
        *speculation(engine, drafts=False),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.kill()


def projected(binary: Path, model: Path, socket: Path, engine: Engine) -> Projected:
    """Return what llama-server projects before it reads the weights."""
    rows: Projected = {}
    said = []
    with running(binary, model, socket, engine) as lines:
        for line in lines:
            said.append(line)
            if match := _ROW.search(line):
                buffer, weights, context, compute = match.groups()
                rows[buffer] = (int(weights), int(context), int(compute))
            if "fitting params to free memory took" in line:
                break
    assert rows, "".join(said[-10:])
    assert rows.keys() <= {"Host", "AMX", "CPU_REPACK"}
    return rows


def allocated(binary: Path, model: Path, socket: Path, engine: Engine) -> dict[str, float]:
    """Return the MiB of the buffers that llama-server made: "KV", "RS" (recurrent state) and "compute"."""
    sizes: dict[str, float] = {}
    said = []
    with running(binary, model, socket, engine) as lines:
        for line in lines:
            said.append(line)
            if match := _BUFFER.search(line):
                sizes[match[1]] = sizes.get(match[1], 0.0) + float(match[2])
            if _READY in line:
                break
    assert "compute" in sizes, "".join(said[-10:])
    return sizes
