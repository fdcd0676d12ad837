"""Paths on this machine: the `auto` and unset paths of Settings resolved.

Owns the names of all files in the run directory, through which the programs communicate. Reads the file system (does a
directory exist, is it writable) but changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gguf.settings.platform import RUNPOD_NETWORK_VOLUME, RUNPOD_POD_VOLUME

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings

DATA_DIR = "/data"
"""The image's own data directory."""
DATA_DIR_CANDIDATES = (DATA_DIR, RUNPOD_NETWORK_VOLUME, RUNPOD_POD_VOLUME)
MODELS_DIR = "models"
"""Default name of the models directory, below the data directory."""

CONFIG_FILE = "/etc/llama-gguf/config.yaml"
"""The image's configuration; on other machines the last candidate."""
UNIX_SOCKET_PATH_BYTES = 107
"""Maximum length of the path of a Unix socket on Linux."""
MAX_RUN_DIR_BYTES = 80
"""Leaves room for the longest socket name: supervisord binds to /supervisord.sock.PID first."""

RUN_DIR_VARIABLE = "LLAMA_GGUF_RUN_DIR"
"""Variable in which `up` passes the run directory to its programs."""
ENGINE_PROGRAM = "engine"
"""Name of the engine's program; of several models each has its own, with the model's name after a hyphen."""


def is_engine(program: str) -> bool:
    """Return whether a program of the appliance is an engine."""
    return program == ENGINE_PROGRAM or program.startswith(f"{ENGINE_PROGRAM}-")


def model_place(program: str) -> str:
    """Return the dotted name, in the configuration, of the model that an engine's program runs."""
    return "model" if program == ENGINE_PROGRAM else f"models.{program.removeprefix(f'{ENGINE_PROGRAM}-')}"


class RunFile:
    """The name of one file in the run directory; as an attribute of a RunDir, its path.

    `{engine}` in it is the name of the engine's program: each engine has such a file of its own.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDir, _: type[RunDir] | None = None) -> Path:
        return run.root / (self.name.format(engine=run.engine) if "{" in self.name else self.name)


@dataclass(frozen=True)
class RunDir:
    """The private directory (0700) of one running appliance, and the name of every file in it.

    `engine` is the program whose files those of the engine are.
    """

    root: Path
    engine: str = ENGINE_PROGRAM
    snapshot = RunFile("settings.json")
    """Settings and locations as `up` resolved them; read by the programs."""
    supervisord_ini = RunFile("supervisord.ini")
    """Configuration of supervisord, written by `up`."""
    supervisord_pid = RunFile("supervisord.pid")
    """Process id of supervisord, written by supervisord."""
    supervisord_log = RunFile("supervisord.log")
    """supervisord's own log: exit statuses and signals of the programs."""
    supervisord_socket = RunFile("supervisord.sock")
    """supervisord's RPC, a Unix socket (0600)."""
    lock = RunFile("up.lock")
    """Held (flock) by `up` for as long as the appliance runs."""
    engine_socket = RunFile("{engine}.sock")
    """llama-server listens here."""
    engine_key = RunFile("{engine}.key")
    """API key between gateway and engine (0600), new at every `up`; a symlink if the directory is on disk."""
    engine_phase = RunFile("{engine}.json")
    """JSON: what the engine program does before llama-server responds (phase, bytes)."""
    engine_variant = RunFile("variant-{engine}.json")
    """JSON: which CPU variant the engine runs, and which ones crashed here."""
    engine_reduction = RunFile("reduction-{engine}.json")
    """JSON: with how much less than configured the engine runs; exists only where engine.shrink allows it."""
    engine_auto = RunFile("auto-{engine}.json")
    """JSON: what was chosen for engine settings that are auto, and why; exists only where one is."""
    failure = RunFile("failure.json")
    """JSON: why the appliance gave up; exists only after that."""
    engine_failure = RunFile("failure-{engine}.json")
    """JSON: why this engine was given up while the appliance goes on without it."""
    residency = RunFile("residency.json")
    """JSON: which engines the gateway has stopped on purpose; exists only where models are loaded on demand."""
    draining = RunFile("draining")
    """Exists once a stop was requested; health responds unready from then on."""
    ready = RunFile("ready")
    """Exists once the appliance has been ready; created by the health server."""
    crashes = RunFile("crashes.json")
    """JSON: when and how each program exited unexpectedly; the listener's state, and the count of restarts."""

    def of_all_engines(self) -> Iterator[Path]:
        """Yield the files that engines have in this directory, also those of another configuration."""
        for file in (RunDir.__dict__[name] for name in vars(RunDir)):
            if isinstance(file, RunFile) and "{engine}" in file.name:
                yield from self.root.glob(file.name.format(engine=f"{ENGINE_PROGRAM}*"))

    def of_engine(self, program: str) -> RunDir:
        """Return the same directory with the files of another engine's program."""
        return RunDir(self.root, program)

    def log(self, program: str) -> Path:
        """Return the newest output of `program` (a link into the logs directory)."""
        return self.root / f"{program}.log"


@dataclass(frozen=True)
class Locations:
    """Every path, absolute."""

    data_dir: Path
    data_dir_reason: str
    models_dir: Path
    logs_dir: Path
    keys_file: Path
    audit_file: Path
    usage_file: Path
    run: RunDir
    run_dir_reason: str

    def of_engine(self, program: str) -> Locations:
        """Return the same with the run directory's files of another engine's program."""
        return replace(self, run=self.run.of_engine(program))

    @property
    def cpu_variants_file(self) -> Path:
        """JSON: CPU variants of the engine that crashed, by machine; outlives the appliance."""
        return self.data_dir / "engine-cpu-variants.json"

    def to_json(self) -> dict[str, str]:
        """Return what `from_json` accepts."""
        return {name: str(value) for name, value in (vars(self) | {"run": self.run.root}).items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, str]) -> Locations:
        """Return the locations that `to_json` described."""
        values: dict[str, Any] = {
            name: text if name.endswith("_reason") else Path(text) for name, text in plain.items()
        }
        return cls(**values | {"run": RunDir(root=values["run"])})


def can_write(path: Path) -> bool:
    """Return whether `path`, or the nearest parent that exists, is a directory that this process can write to."""
    while not path.exists():
        if path == path.parent:
            return False
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _find_data_dir(
    settings: Settings, env: Mapping[str, str], is_dir: Callable[[Path], bool], is_mount: Callable[[Path], bool]
) -> tuple[Path, str]:
    if settings.paths.data_dir != "auto":
        return Path(settings.paths.data_dir).absolute(), "paths.data_dir"
    candidates = [Path(candidate) for candidate in DATA_DIR_CANDIDATES if is_dir(Path(candidate))]
    # A volume wins: the image has a /data of its own, which must not hide a platform's mounted /workspace.
    for candidate in candidates:
        if is_mount(candidate):
            return candidate, f"auto: a volume is mounted at {candidate}"
    for candidate in candidates:
        return candidate, f"auto: {candidate} exists"
    base = Path(env.get("XDG_DATA_HOME") or Path(env.get("HOME") or "/tmp") / ".local/share")  # noqa: S108
    return base / "llama-gguf", f"auto: none of {', '.join(DATA_DIR_CANDIDATES)} exists"


def _find_run_dir(settings: Settings, env: Mapping[str, str], writable: Callable[[Path], bool]) -> tuple[Path, str]:
    if settings.paths.run_dir != "auto":
        return Path(settings.paths.run_dir).absolute(), "paths.run_dir"
    system = Path("/run/llama-gguf")
    if writable(system):
        return system, "auto: /run is writable"
    if runtime := env.get("XDG_RUNTIME_DIR"):
        user = Path(runtime) / "llama-gguf"
        if writable(user):
            return user, "auto: $XDG_RUNTIME_DIR is writable"
    import tempfile  # noqa: PLC0415 - costs 20 ms in each program

    temporary = Path(tempfile.gettempdir()) / f"llama-gguf-{os.getuid()}"
    return temporary, "auto: neither /run nor $XDG_RUNTIME_DIR is writable"


def _keys_file_name(data_dir: Path, is_file: Callable[[Path], bool]) -> str:
    """Return the default keys file: the legacy one, if only that exists."""
    legacy = "api_keys.txt"
    return legacy if is_file(data_dir / legacy) and not is_file(data_dir / "keys.json") else "keys.json"


def locate(
    settings: Settings,
    env: Mapping[str, str],
    *,
    is_dir: Callable[[Path], bool] = Path.is_dir,
    writable: Callable[[Path], bool] = can_write,
    is_file: Callable[[Path], bool] = Path.is_file,
    is_mount: Callable[[Path], bool] = os.path.ismount,
) -> Locations:
    """Resolve every path of `settings` on this machine."""
    data_dir, data_dir_reason = _find_data_dir(settings, env, is_dir, is_mount)
    run_dir, run_dir_reason = _find_run_dir(settings, env, writable)

    def below(value: str | None, default: str) -> Path:
        return Path(value).absolute() if value else data_dir / default

    return Locations(
        data_dir=data_dir,
        data_dir_reason=data_dir_reason,
        models_dir=below(settings.paths.models_dir, MODELS_DIR),
        logs_dir=below(settings.paths.logs_dir, "logs"),
        keys_file=below(settings.auth.keys_file, _keys_file_name(data_dir, is_file)),
        audit_file=below(settings.auth.audit_file, "audit.jsonl"),
        usage_file=below(settings.limits.usage_file, "usage.sqlite3"),
        run=RunDir(root=run_dir),
        run_dir_reason=run_dir_reason,
    )
