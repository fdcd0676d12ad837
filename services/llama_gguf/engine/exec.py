"""From a snapshot to a running llama-server: fetch the weights, check the preconditions, and exec it.

The process that supervisord started becomes llama-server, so supervisord's signals reach llama-server itself and its
exit status reaches supervisord.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from llama_gguf.engine.argv import Host, build_argv
from llama_gguf.engine.binary import Device, IllegalInstructionError, devices, find_binary, has_gpu_backend
from llama_gguf.engine.cgroup import detect_thread_limit, read_or_empty
from llama_gguf.engine.environment import engine_environment
from llama_gguf.engine.shrinking import ShrinkSteps
from llama_gguf.engine.variant_choice import VariantSteps, this_machine
from llama_gguf.errors import ConfigError, ExitCode, LaunchError, Problem
from llama_gguf.logs import fields
from llama_gguf.models.gguf.facts import facts_of
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.progress import LoggedProgress
from llama_gguf.models.resolve import resolve_with_retries
from llama_gguf.models.source import served_names
from llama_gguf.rundir import engine_values
from llama_gguf.rundir.engine_phase import PhaseFile
from llama_gguf.rundir.llama_server_log import FOLLOWS
from llama_gguf.rundir.notices import Notice
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings.checks.model_facts import model_problems
from llama_gguf.settings.locations import UNIX_SOCKET_PATH_BYTES, model_place
from llama_gguf.settings.one_model import with_engine
from llama_gguf.settings.sections.engine_parts.auto import automatic
from llama_gguf.states import Phase

if TYPE_CHECKING:
    from llama_gguf.settings import Settings
    from llama_gguf.settings.sections.model import Model

log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
_CAPABILITIES = re.compile(r"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)
_CAP_IPC_LOCK = 1 << 14
SYSTEM_CONFIG = Path("/etc/llama.cpp/config.ini")
"""llama-server always reads this file; no option disables that."""


def run(
    snapshot: Snapshot,
    env: Mapping[str, str],
    *,
    beside: Mapping[str, Model] | None = None,
    execve: Callable[..., NoReturn] = os.execve,
) -> NoReturn:
    """Become llama-server. Raises ConfigError, ModelError or LaunchError when that fails.

    `beside` are the models that other engines load at the start, by their places in the configuration.
    """
    run_dir = snapshot.locations.run
    state = PhaseFile(run_dir.engine_phase, served_names(snapshot.settings.model)[0])
    variants = VariantSteps(snapshot, this_machine())
    variants.apply_exits()
    shrinking = ShrinkSteps(_as_chosen(snapshot))
    reduced_snapshot = shrinking.apply_exits()
    if shrinking.has_reduced:
        snapshot = reduced_snapshot  # from what was chosen for auto before, and ran out of memory
    state.phase(Phase.RESOLVING, "locating llama-server and the model")
    binary = find_binary(snapshot.settings, env)
    check_surroundings(snapshot, SYSTEM_CONFIG)
    if snapshot.settings.engine.extra_args:
        from llama_gguf.engine.checks.extra_args import extra_args_problems  # noqa: PLC0415 - few have any; costs 14 ms

        refuse(extra_args_problems(snapshot.settings, binary, run_dir.root, env))
    files = resolve_with_retries(
        snapshot.settings.model,
        snapshot.locations,
        env,
        LoggedProgress(state),
        place=model_place(run_dir.engine),
        beside=beside,
    )
    engine_env, notices = _environment_that_runs(snapshot, binary, env, variants)
    # `check` reports the same for a file on disk; a downloaded one is checked here for the first time.
    header = read_header(files.model)
    problems = model_problems(snapshot.settings, facts_of(header))
    refuse(problems)
    notices += [Notice(problem.code, problem.message, problem.hint) for problem in problems]
    notices += check_lock(snapshot.settings, files.model.stat().st_size)
    for notice in notices:
        log.warning(notice.message, extra=fields(code=notice.code, hint=notice.hint))
        state.warn(notice)
    if crashed := variants.notice():
        state.warn(crashed)  # logged when it was detected, not at each start
    if reduced := shrinking.notice():
        state.warn(reduced)
    if automatic(snapshot.settings.engine):
        from llama_gguf.engine.auto.choose import choose  # noqa: PLC0415 - few have any; imports pydantic

        snapshot, chosen = choose(snapshot, env, _usable_devices(snapshot.settings, binary, engine_env))
        shrinking.begin_with(snapshot)
        state.warn(chosen)
    shrinking.start(header)
    host = Host(threads=detect_thread_limit(), gpu_backend=has_gpu_backend(binary))
    argv = build_argv(snapshot.settings, snapshot.locations, files, host)
    # A socket file left by a killed llama-server would make bind fail.
    run_dir.engine_socket.unlink(missing_ok=True)
    log.info("starting llama-server", extra=fields(binary=str(binary), argv=argv))
    state.phase(Phase.STARTING, str(files.model))
    if env.get("SUPERVISOR_ENABLED"):  # set by supervisord, which reads our output by `runtime.engine_output`
        sys.stdout.buffer.write(FOLLOWS + b"\n")
        sys.stdout.flush()
    execve(binary, [str(binary), *argv], engine_env)


def _environment_that_runs(
    snapshot: Snapshot, binary: Path, env: Mapping[str, str], variants: VariantSteps
) -> tuple[dict[str, str], list[Notice]]:
    """Return llama-server's environment, with a CPU variant that can at least list the GPUs; and warnings."""
    while True:
        engine_env = engine_environment(env, snapshot.locations.run.root, variants.choose(binary))
        try:
            return engine_env, check_gpu(snapshot, binary, engine_env)
        except IllegalInstructionError:
            if not variants.step_down():
                raise


def _as_chosen(snapshot: Snapshot) -> Snapshot:
    """Return the settings with the values that the engine before this one had for those that are auto."""
    names = automatic(snapshot.settings.engine)
    before = engine_values.read(snapshot.locations.run.engine_auto) if names else None
    return replace(snapshot, settings=with_engine(snapshot.settings, **before.values)) if before else snapshot


def _usable_devices(settings: Settings, binary: Path, env: Mapping[str, str]) -> tuple[Device, ...]:
    return devices(binary, env) if settings.engine.gpu_layers != 0 and has_gpu_backend(binary) else ()


def refuse(problems: Sequence[Problem]) -> None:
    """Raise the first error of `problems`, in the words of `check`."""
    for problem in problems:
        if problem.severity == "error":
            raise ConfigError(problem.message, hint=problem.hint)


def check_gpu(snapshot: Snapshot, binary: Path, env: Mapping[str, str]) -> list[Notice]:
    """Return warnings; raise if layers must be on a GPU and a build for GPUs finds none: it would be far slower.

    A build without a GPU backend only warns: old deployments set NGL on CPU images too. `auto` is only a preference.
    """
    wanted = snapshot.settings.engine.gpu_layers
    if wanted == 0:
        return []
    if not has_gpu_backend(binary):
        check_devices(snapshot.settings, [])
        if wanted == "auto":
            return []
        message = f"engine.gpu_layers is {wanted}, but no GPU is usable: the model will run on the CPU"
        return [Notice("no-gpu", message, "this llama-server is built for CPUs: use the CUDA image, or set 0")]
    found = devices(binary, env)
    check_devices(snapshot.settings, [device.id for device in found])
    if found:
        return []
    hint = "start the container with GPU access (docker: --gpus all) on a host whose driver fits, or use the CPU image"
    if wanted == "auto":
        return [Notice("no-gpu", "no GPU is visible, the model will run on the CPU", hint)]
    raise LaunchError(
        f"engine.gpu_layers is {wanted}, but no GPU is visible: the NVIDIA driver is missing, too old, or hides them",
        hint=f"{hint}, or set engine.gpu_layers to auto",
        exit_code=ExitCode.CONFIG,
    )


def check_lock(settings: Settings, size: int, status: str | None = None) -> list[Notice]:
    """Return a warning if the weights cannot be locked in memory as configured: llama-server goes on without.

    `status` is the text of /proc/self/status.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if "mlock" not in settings.engine.load_mode or limit == resource.RLIM_INFINITY or size <= limit:
        return []
    text = read_or_empty(_STATUS) if status is None else status
    if (found := _CAPABILITIES.search(text)) and int(found[1], 16) & _CAP_IPC_LOCK:
        return []
    message = f"engine.load_mode: {settings.engine.load_mode} cannot lock the weights: the limit is {limit >> 10} KiB"
    return [Notice("memory-not-locked", message, "raise the limit (docker: --ulimit memlock=-1), or set auto")]


def check_devices(settings: Settings, found: Sequence[str]) -> None:
    """Raise if the settings name GPUs that llama-server does not find, or more than there are."""
    engine = settings.engine
    present = f"llama-server finds {', '.join(found)}" if found else "llama-server finds none"
    hint = "correct it, or give the container access to the GPU"
    for name in engine.devices:
        if name not in found:
            message = f"engine.devices: there is no {name}: {present}"
            raise LaunchError(message, hint=hint, exit_code=ExitCode.CONFIG)
    if engine.devices or not found:
        return
    if len(engine.tensor_split) > len(found):
        message = f"engine.tensor_split: {len(engine.tensor_split)} shares, but {present}"
        raise LaunchError(message, hint=hint, exit_code=ExitCode.CONFIG)
    if engine.main_gpu is not None and engine.main_gpu >= len(found):
        message = f"engine.main_gpu: there is no number {engine.main_gpu}: {present}, which count from 0"
        raise LaunchError(message, hint=hint, exit_code=ExitCode.CONFIG)


def check_surroundings(snapshot: Snapshot, system_config: Path) -> None:
    """Raise if llama-server could not listen, or would be configured by something other than our configuration."""
    socket = snapshot.locations.run.engine_socket
    if len(os.fsencode(socket)) > UNIX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"{socket}: the path of a unix socket can have at most {UNIX_SOCKET_PATH_BYTES} bytes",
            hint="set paths.run_dir to a shorter directory",
        )
    if not snapshot.locations.run.engine_key.is_file():
        raise LaunchError(
            f"{snapshot.locations.run.engine_key}: the engine's key file is missing",
            hint="start the programs with `llama-gguf up`, which creates it",
        )
    check_system_config(snapshot.settings, system_config)


def check_system_config(settings: Settings, system_config: Path) -> None:
    """Raise if llama-server would be configured by a file that is not ours."""
    if system_config.exists() and not settings.engine.allow_unsafe_args:
        raise LaunchError(
            f"{system_config}: llama-server would read settings from this file, bypassing our configuration",
            hint="remove the file, or set engine.allow_unsafe_args",
            exit_code=ExitCode.CONFIG,
        )
