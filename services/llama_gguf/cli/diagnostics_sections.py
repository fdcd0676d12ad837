"""The sections of the report about a machine and an appliance on it: each function returns one, and never raises.

The caller masks the whole report at the end; settings are masked here too, by name.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_gguf import __version__
from llama_gguf.cli.appliance import Facts
from llama_gguf.engine.binary import find_binary
from llama_gguf.engine.cgroup import read_or_empty
from llama_gguf.engine.cpu_libraries import VARIABLE
from llama_gguf.engine.variant_choice import choose, this_machine
from llama_gguf.errors import LlamaGgufError
from llama_gguf.models.inventory import file_status
from llama_gguf.models.source import plan_sources
from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.runtime.log_tail import tail_lines
from llama_gguf.runtime.process import all_processes, session_members
from llama_gguf.settings.gguf_file import MAGIC
from llama_gguf.settings.one_model import OneModel
from llama_gguf.settings.redaction import mask_value
from llama_gguf.settings.sections.sources import DOWNLOADED, sources_of

_COMMAND_SECONDS = 20.0
_ERROR = re.compile(
    r"\b(error|fatal|fail(?:ed|ure)|critical|traceback|exception|out of memory|killed)\b", re.IGNORECASE
)
_GPU_QUERY = "name,driver_version,memory.total,memory.used,utilization.gpu,compute_cap"


def system(proc: Path = Path("/proc")) -> dict[str, Any]:
    """Return kernel, Python, CPU, memory and the limits of the container."""
    memory = _pairs(read_or_empty(proc / "meminfo"))
    model = _pairs(read_or_empty(proc / "cpuinfo")).get("model name", platform.machine())
    return {
        "appliance": __version__,
        "python": sys.version.split()[0],
        "kernel": platform.release(),
        "machine": platform.machine(),
        "os": _pairs(read_or_empty(Path("/etc/os-release")), "=").get("PRETTY_NAME", "").strip('"'),
        "cpu": model,
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_total": memory.get("MemTotal"),
        "memory_available": memory.get("MemAvailable"),
        "cgroup_memory_max": read_or_empty(Path("/sys/fs/cgroup/memory.max")).strip() or None,
        "cgroup_cpu_max": read_or_empty(Path("/sys/fs/cgroup/cpu.max")).strip() or None,
        "user": f"uid {os.geteuid()}, gid {os.getegid()}",
    }


def disks(paths: Iterable[Path]) -> dict[str, str]:
    """Return free and total space where each path is, or will be."""
    found = {}
    for path in paths:
        existing = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        usage = shutil.disk_usage(existing)
        found[str(path)] = f"{usage.free // 2**20} MiB free of {usage.total // 2**20} MiB"
    return found


def gpus(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the output of nvidia-smi, if it is installed."""
    tool = shutil.which("nvidia-smi", path=env.get("PATH"))
    if tool is None:
        return {"found": False, "reason": "no nvidia-smi on PATH"}
    code, text = _output([tool, f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader"])
    return {"found": code == 0, "columns": _GPU_QUERY, "gpus" if code == 0 else "reason": text.splitlines()}


def engine(snapshot: Snapshot | None, env: Mapping[str, str]) -> dict[str, Any]:
    """Return the llama-server in use, its CPU variant for this machine, its version and the devices it detects.

    Of several models for each, by name; those that use the same one are told so.
    """
    if snapshot is None:
        return {"reason": "the settings are unknown"}
    first: dict[tuple[str | None, str], str] = {}
    found: dict[str, Any] = {}
    for one in snapshot.models:
        chosen = one.settings.engine
        same = first.setdefault((chosen.binary, chosen.cpu_variant), one.key)
        found[one.key] = _engine(snapshot, one, env) if same == one.key else {"same_as": same}
    return found if snapshot.settings.models else found[""]


def _engine(snapshot: Snapshot, one: OneModel, env: Mapping[str, str]) -> dict[str, Any]:
    try:
        binary = find_binary(one.settings, env)
        variant = choose(one.settings, binary, this_machine(), snapshot.locations.cpu_variants_file)
    except LlamaGgufError as error:
        return {"reason": error.message, "hint": error.hint}
    environment = {**env, VARIABLE: variant.variant} if variant else dict(env)
    return {
        "binary": str(binary),
        "cpu_variant": engine_variant.summary(variant),
        "version": _output([str(binary), "--version"], environment)[1].splitlines(),
        "devices": _output([str(binary), "--list-devices"], environment)[1].splitlines(),
    }


def model(snapshot: Snapshot | None, env: Mapping[str, str]) -> dict[str, Any]:
    """Return which weights are configured and, of a file on disk, whether it is a GGUF file; of several by name."""
    if snapshot is None:
        return {}
    found = {one.key: _model(snapshot, one, env) for one in snapshot.models}
    return found if snapshot.settings.models else found[""]


def _model(snapshot: Snapshot, one: OneModel, env: Mapping[str, str]) -> dict[str, Any]:
    chosen = one.settings.model
    excluded = {"engine"}  # of one of several: it is in the settings
    source = chosen.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
    found: dict[str, Any] = {"source": mask_value("model", source)}
    try:
        file = file_status(plan_sources(chosen, snapshot.locations, env, one.place).model)
    except LlamaGgufError as error:
        return found | {"reason": error.message}
    if set(sources_of(chosen)) & set(DOWNLOADED) and not file.present:
        return found | {"downloaded": False}
    found["file"] = str(file.path)
    try:
        with file.path.open("rb") as content:
            found["is_gguf"] = content.read(len(MAGIC)) == MAGIC
        found["size_mib"] = file.bytes_on_disk // 2**20
    except OSError as error:
        found["reason"] = error.strerror
    return found


def processes(facts: Facts, proc: Path = Path("/proc")) -> list[dict[str, Any]]:
    """Return every process of the appliance: pid, parent, memory, command line."""
    pid_text = read_or_empty(facts.run.supervisord_pid).strip()
    if not pid_text.isdigit():
        return []
    members = set(session_members(int(pid_text)))
    return [
        {
            "pid": item.pid,
            "parent": item.parent,
            "state": item.state,
            **_memory(_pairs(read_or_empty(proc / str(item.pid) / "status"))),
            "command": read_or_empty(proc / str(item.pid) / "cmdline").replace("\0", " ").strip(),
        }
        for item in all_processes(proc)
        if item.pid in members
    ]


def _memory(status: Mapping[str, str]) -> dict[str, str | None]:
    """Split by kind: file-backed pages can be dropped, anonymous ones only swapped, so a total would be misleading."""
    names = {"rss": "VmRSS", "anonymous": "RssAnon", "mapped": "RssFile", "swapped": "VmSwap"}
    return {name: status.get(field) for name, field in names.items()}


def logs(facts: Facts, lines: int) -> dict[str, list[str]]:
    """Return the last lines of every log in the run directory."""
    paths = {"supervisord": facts.run.supervisord_log}
    paths |= {path.stem: path for path in sorted(facts.run.root.glob("*.log")) if path != facts.run.supervisord_log}
    return {name: tail_lines(path, lines) for name, path in paths.items()}


def errors(tails: Mapping[str, list[str]], maximum: int = 50) -> list[str]:
    """Return the last of the lines that report an error."""
    return [f"{name}: {line}" for name, lines in tails.items() for line in lines if _ERROR.search(line)][-maximum:]


def _output(command: list[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, (done.stdout + done.stderr).strip()


def _pairs(text: str, separator: str = ":") -> dict[str, str]:
    """Parse `name: value` lines; of a repeated name the first is used."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.partition(separator)
        if sign:
            found.setdefault(name.strip(), value.strip())
    return found
