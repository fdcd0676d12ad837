"""Programs -> the text of supervisord's ini file.

Pure. supervisord truncates a value at ` ;` even inside quotes, expands `%` and splits commands like a shell. So every
value is checked against a small set of characters, and all paths are relative to the run directory, which is
supervisord's working directory: `logs` and `cwd` are symbolic links there, so the real names do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.runtime.program_environment import withheld
from llama_gguf.settings import RunDir
from llama_gguf.settings.locations import is_engine

from .programs import Program

if TYPE_CHECKING:
    from llama_gguf.settings.sections.logging import Logging

LOGS_LINK = "logs"
"""Link in the run directory to the directory of this start's log files."""
CWD_LINK = "cwd"
"""Link in the run directory to the directory in which the programs run."""

_HERE = RunDir(root=Path())  # the run directory is supervisord's working directory
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_WORD = re.compile(r"[A-Za-z0-9_./=-]+")
_EVENTS = "PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL"


def render_ini(
    programs: Sequence[Program], logging: Logging, *, variables: Collection[str] = (), as_root: bool = False
) -> str:
    """Return supervisord's configuration. Raises ValueError for a program that cannot be written safely.

    `variables` are the names in supervisord's environment. `as_root` avoids supervisord's warning about running as
    root.
    """
    sections: list[tuple[str, Mapping[str, object]]] = [
        (
            "supervisord",
            {
                "nodaemon": "true",
                "silent": "true",
                "nocleanup": "true",
                "identifier": "llama-gguf",
                "logfile": _HERE.supervisord_log,
                "logfile_maxbytes": 1_048_576,
                "logfile_backups": 1,
                "pidfile": _HERE.supervisord_pid,
                "childlogdir": ".",
                "minfds": 64,
                "minprocs": 1,
                **({"user": "root"} if as_root else {}),
            },
        ),
        ("unix_http_server", {"file": _HERE.supervisord_socket, "chmod": "0600"}),
        (
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        (
            "rpcinterface:engine_output",
            {
                "supervisor.rpcinterface_factory": "llama_gguf.runtime.engine_output:make_rpcinterface",
                "programs": ",".join(program.name for program in programs if is_engine(program.name)),
                "log_format": logging.format,
            },
        ),
        *(_program_section(program, logging, withheld(program, programs, variables)) for program in programs),
    ]
    text = "; Written by `llama-gguf up` at every start: edit config.yaml instead.\n"
    for name, values in sections:
        text += f"\n[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    return text


def _program_section(program: Program, logging: Logging, blanked: list[str]) -> tuple[str, dict[str, object]]:
    if not _NAME.fullmatch(program.name):
        raise ValueError(f"not a program name: {program.name!r}")
    for word in (*program.argv, program.stop_signal, *blanked):
        if not _WORD.fullmatch(word):
            raise ValueError(f"{program.name}: {word!r} cannot be written to supervisord's configuration")
    values: dict[str, object] = {
        "command": " ".join(program.argv),
        "directory": CWD_LINK,
        "priority": program.priority,
        **({} if program.autostart else {"autostart": "false"}),
        "autorestart": "true",
        "startsecs": program.start_seconds,
        "startretries": program.start_retries,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_seconds,
        "killasgroup": "true",
    }
    if blanked:
        values["environment"] = ",".join(f'{name}=""' for name in blanked)
    stream = "stderr" if program.listener else "stdout"
    log = {
        f"{stream}_logfile": f"{LOGS_LINK}/{program.name}.log",
        f"{stream}_logfile_maxbytes": logging.max_bytes,
        f"{stream}_logfile_backups": logging.backups,
    }
    if program.listener:
        values |= {"events": _EVENTS, "buffer_size": 100, "stdout_logfile": "NONE"} | log
        return f"eventlistener:{program.name}", values
    values |= {"redirect_stderr": "true"} | log
    return f"program:{program.name}", values
