"""Problems between one model's settings and the engine of this machine, in the words with which a start would end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from llama_gguf.engine.binary import IllegalInstructionError, find_binary
from llama_gguf.engine.checks.extra_args import extra_args_problems
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.exec import SYSTEM_CONFIG, check_gpu, check_system_config
from llama_gguf.engine.variant_choice import choose, this_machine
from llama_gguf.errors import ExitCode, LaunchError, Problem
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.snapshot import Snapshot


def engine_problems(snapshot: Snapshot, env: Mapping[str, str], system_config: Path = SYSTEM_CONFIG) -> list[Problem]:
    """Return what the engine's program would refuse or warn of; without an engine on this machine less is known."""
    settings, locations = snapshot.settings, snapshot.locations
    found = list(_attempt("foreign-config", "engine", lambda: check_system_config(settings, system_config)))
    try:
        binary = find_binary(settings, env)
    except LaunchError:
        return found  # as where a configuration is written for another machine
    found += extra_args_problems(settings, binary, locations.run.root, env)
    if settings.engine.cpu_variant != "auto":
        pinned = _attempt(
            "cpu-variant-unusable",
            "engine.cpu_variant",
            lambda: choose(settings, binary, this_machine(), locations.cpu_variants_file),
        )
        found += pinned
    engine_env = engine_environment(env, locations.run.root)
    found += _attempt("gpu-missing", "engine.gpu_layers", lambda: check_gpu(snapshot, binary, engine_env))
    return found


def _attempt(code: str, setting: str, check: Callable[[], object]) -> Iterator[Problem]:
    try:
        warnings = check()
    except IllegalInstructionError:
        return  # another variant of its CPU code is tried then (engine.variant_choice)
    except LaunchError as error:
        if error.exit_code == ExitCode.CONFIG:
            yield Problem(code, error.message, setting, hint=error.hint)
        else:
            yield Problem("engine-unusable", error.message, "engine.binary", hint=error.hint)
        return
    if isinstance(warnings, Sequence):
        for notice in warnings:
            if isinstance(notice, Notice):
                yield Problem(code, notice.message, setting, hint=notice.hint, severity="warning")
