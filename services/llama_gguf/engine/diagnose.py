"""The engine's last log lines -> cause and fix. Pure: lines, exit code and signal in, a value out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from llama_gguf.engine.known_failures import GPU_OUT_OF_MEMORY, HOST_OUT_OF_MEMORY, RULES, SIGNALS, Diagnosis
from llama_gguf.errors import ExitCode
from llama_gguf.rundir.engine_reduction import Memory
from llama_gguf.rundir.engine_variant import EngineVariant
from llama_gguf.rundir.exits import ExitStatus
from llama_gguf.rundir.llama_server_log import TEXT_MARK

_UNLOGGED = {"SIGKILL", "SIGILL"}
_SHELL_CODES = {132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 137: "SIGKILL", 139: "SIGSEGV"}
_OWN_CODES = set(ExitCode) - {ExitCode.OK}  # llama-server itself fails with 1
_OWN_ERROR = re.compile(r"^error: (?P<what>.+)$(?:\nhint: (?P<hint>.+))?", re.MULTILINE)
_START = re.compile(r"starting llama-server|llama_server: initializing")
_LOADS = re.compile(r"load_model: loading model")
_LOADED = re.compile(r"llama_server: model loaded|listening on")
_DEVICE: Memory = "device"
_HOST: Memory = "host"
_PREFIX = re.compile(rf"^(?:{re.escape(TEXT_MARK)})?(?:\d+\.\d\d\.\d{{3}}\.\d{{3}} )?(?:[IWED] )?")
_NO_VARIANT_RUNS = (
    "report it with `llama-gguf diagnostics`; until then build the engine on this machine (make engine) and name it in "
    "engine.binary"
)
_NOISE = re.compile(r"cleaning up before exit|exiting due to|^usage:|^to show complete usage|^\s*$")


def diagnose(log_tail: Sequence[str], exit_code: int | None, signal: str | None) -> Diagnosis:
    """Return why the engine ended.

    `log_tail` is its last output, oldest line first, text or JSON lines; `signal` as in "SIGKILL", with `exit_code`
    None. This is a heuristic: without a match it quotes the last error.
    """
    lines = _last_start([_message(line) for line in log_tail])
    text = "\n".join(lines)
    if signal is None and exit_code is not None:
        signal = _SHELL_CODES.get(exit_code)
    if signal in _UNLOGGED:  # the log cannot explain these
        return SIGNALS[signal]
    if exit_code in _OWN_CODES and (match := _last(_OWN_ERROR, text)):
        invalid = exit_code == ExitCode.CONFIG
        return Diagnosis(match["what"], match["hint"] or "", permanent=invalid, configuration=invalid)
    for rule in RULES:
        if match := _last(rule.pattern, text):
            groups = {name: (value or "").strip() for name, value in match.groupdict().items()}
            return Diagnosis(rule.cause.format(**groups), rule.fix.format(**groups), rule.permanent, rule.configuration)
    if signal in SIGNALS:
        return SIGNALS[signal]
    if exit_code in (126, 127):
        fix = "run `make engine`, or correct engine.binary"
        return Diagnosis("llama-server cannot be executed", fix, permanent=True)
    return _unknown(lines, exit_code, signal)


def out_of_memory(log_tail: Sequence[str], exit_code: int | None, signal: str | None) -> Memory | None:
    """Return which memory was too small to load the model, if that is why the engine ended; arguments as in `diagnose`.

    Once the model is loaded nothing counts: then requests can put lines into the log. SIGKILL during a load is nearly
    always the kernel's, which logs nothing of it here.
    """
    text = "\n".join(_last_start([_message(line) for line in log_tail]))
    if _LOADED.search(text):
        return None
    found = diagnose(log_tail, exit_code, signal)
    if found == SIGNALS["SIGKILL"]:
        return "host" if _LOADS.search(text) else None
    return {GPU_OUT_OF_MEMORY: _DEVICE, HOST_OUT_OF_MEMORY: _HOST}.get(found.cause)


def name_variants(found: Diagnosis, ended: ExitStatus, record: EngineVariant | None) -> Diagnosis:
    """Return the diagnosis of an illegal instruction, with the CPU variants that were tried."""
    if record is None or not ended.illegal_instruction:
        return found
    if record.pinned:
        cause = f"{found.cause}: the CPU variant {record.variant}, which engine.cpu_variant pins, crashed"
        return replace(found, cause=cause, fix="set engine.cpu_variant to auto, or to a lower variant")
    tried = [*record.rejected_names, *filter(None, (record.variant,))]
    if not tried:
        return found
    return replace(found, cause=f"{found.cause}; CPU variants tried: {', '.join(tried)}", fix=_NO_VARIANT_RUNS)


def _last_start(lines: list[str]) -> list[str]:
    """Return the lines of the last start: a tail can contain earlier ones, which ended for other reasons."""
    starts = [number for number, line in enumerate(lines) if _START.search(line)]
    return [_PREFIX.sub("", line) for line in lines[starts[-1] if starts else 0 :]]


def _unknown(lines: Sequence[str], exit_code: int | None, signal: str | None) -> Diagnosis:
    status = signal or (f"exit code {exit_code}" if exit_code is not None else "no exit code")
    last = next((line for line in reversed(lines) if not _NOISE.search(line)), "")
    quoted = f"; its last line: {last}" if last else ""
    return Diagnosis(
        f"llama-server ended with {status}{quoted}",
        "see the engine's log; `llama-gguf plan` shows the command, to run it by hand",
        permanent=exit_code == ExitCode.CONFIG,
        configuration=exit_code == ExitCode.CONFIG,
    )


def _message(line: str) -> str:
    """Return the message of a line: of its JSON object if it is one (llama-server's or our own program's)."""
    if line.startswith("{"):
        try:
            found = json.loads(line)
        except ValueError:
            return line
        if isinstance(found, dict):
            return str(found.get("msg") or found.get("event") or line).rstrip("\n")
    return line.rstrip("\n")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = list(pattern.finditer(text))
    return matches[-1] if matches else None
