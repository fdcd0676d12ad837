"""What commands ask the gateway of a running appliance, with an operator's key.

The key is read from a variable or a file and never from an argument, which every user of the machine can see. It is
part of no message and goes to the gateway of this machine only: no proxy and no redirect is followed.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from llama_gguf.api_errors import ERROR_CODES
from llama_gguf.errors import ApplianceError, ExitCode, KeysError
from llama_gguf.keys.secret import check_secret
from llama_gguf.logs import clean
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir
from llama_gguf.settings.environment_value import clean as clean_value
from llama_gguf.settings.hosts import from_here
from llama_gguf.settings.loading.known_variables import ADMIN_KEY_VARIABLE

STDIN = Path("-")
_TIMEOUT_SECONDS = 30.0
_MAX_KEY_BYTES = 4096
_MAX_RESPONSE_BYTES = 1 << 22
_REMEDIES: Mapping[str, str] = {
    **{one.code: one.remedy for one in ERROR_CODES},
    "insufficient_scope": "`llama-gguf keys generate NAME --scopes admin` generates a key with that scope",
    "invalid_api_key": f"`llama-gguf keys list` shows the keys; check {ADMIN_KEY_VARIABLE} or --key-file",
    "model_not_found": "`llama-gguf models list` shows the models",
}
_NEW_KEY = "`llama-gguf keys generate NAME --scopes admin` generates one"


class OperatorCalls:
    """Asks the gateway of one appliance. Every call raises ApplianceError."""

    def __init__(self, snapshot: Snapshot, key: str | None) -> None:
        self.snapshot = snapshot
        self._key = key

    def residency(self) -> list[dict[str, Any]]:
        """Return what the gateway tells an operator of each model."""
        return _rows(self._call("GET", "/models/residency"))

    def change(self, action: Literal["load", "unload", "pin", "unpin"], model: str) -> dict[str, Any]:
        """Have a model loaded, unloaded or kept, and return its state now."""
        return self._call("POST", f"/models/{action}", {"model": model})

    def known_states(self) -> list[dict[str, Any]]:
        """Return the name and state of each model, which everybody may know; empty for a single model."""
        return _rows(self._call("GET", "/health"))

    def _call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        gateway = self.snapshot.settings.gateway
        connection = http.client.HTTPConnection(from_here(gateway.host), gateway.port, timeout=_TIMEOUT_SECONDS)
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read(_MAX_RESPONSE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ApplianceError(
                f"the gateway on port {gateway.port} does not answer: {error or type(error).__name__}",
                hint="`llama-gguf status` shows what runs, and why something does not",
            ) from error
        finally:
            connection.close()
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ApplianceError(
                f"what answers on port {gateway.port} is no gateway of llama-gguf (status {status})",
                hint="`llama-gguf status` shows the port of this appliance",
            )
        if status >= 400:
            raise _refused(status, value)
        return value


def _rows(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = value.get("models", [])
    return [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []


def _refused(status: int, value: Mapping[str, Any]) -> ApplianceError:
    found = value.get("error")
    error = found if isinstance(found, dict) else {}
    code = str(error.get("code", ""))
    return ApplianceError(
        clean(str(error.get("message", f"the gateway answered with status {status}"))),
        hint=_REMEDIES.get(code, ""),
        exit_code=ExitCode.UNAVAILABLE if status >= 500 else ExitCode.CONFIG,
    )


def operator_calls(run: RunDir, key_file: Path | None, env: Mapping[str, str] | None = None) -> OperatorCalls:
    """Return the calls of an operator to the appliance of a run directory. Raises ApplianceError."""
    snapshot = _snapshot_of(run)
    if not snapshot.settings.auth.enabled:
        raise ApplianceError(
            "authentication is off, and then nobody can load or unload models",
            hint=f"set auth.enabled; {_NEW_KEY}",
            exit_code=ExitCode.CONFIG,
        )
    key = read_key(key_file, os.environ if env is None else env)
    if key is None:
        raise ApplianceError(
            "this needs a key with the scope admin",
            hint=f"give it as {ADMIN_KEY_VARIABLE} or --key-file FILE; {_NEW_KEY}",
            exit_code=ExitCode.CONFIG,
        )
    return OperatorCalls(snapshot, key)


def model_states(run: RunDir, env: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """Return what the gateway tells of each model: with the variable's key all of it, else names and states.

    None where no gateway answers; empty for a single model that stays loaded.
    """
    if not run.snapshot.exists():
        return None
    try:
        return operator_calls(run, None, env).residency()
    except ApplianceError:  # without a usable key there is still what everybody may know
        pass
    try:
        return OperatorCalls(_snapshot_of(run), None).known_states()
    except ApplianceError:
        return None


def _snapshot_of(run: RunDir) -> Snapshot:
    if not run.snapshot.exists():
        raise ApplianceError(f"nothing runs in {run.root}", hint="`llama-gguf up` starts an appliance")
    return snapshots.read_validated(run.snapshot)


def read_key(file: Path | None, env: Mapping[str, str]) -> str | None:
    """Return the operator's key: of the file (`-` = stdin), else of the variable, else None. Raises ApplianceError."""
    if file is None:
        text, source = env.get(ADMIN_KEY_VARIABLE, ""), ADMIN_KEY_VARIABLE
        if not clean_value(text).text:
            return None
    else:
        source = "--key-file"
        try:
            text = _read_start(file)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or "it is not a text"
            raise ApplianceError(
                f"{source}: cannot be read: {reason}",
                hint="give a file that holds the key alone, or - to read it from stdin",
                exit_code=ExitCode.CONFIG,
            ) from None
    try:
        return check_secret(clean_value(text).text)
    except KeysError as error:
        raise ApplianceError(f"{source}: {error.message}", hint=_NEW_KEY, exit_code=ExitCode.CONFIG) from None


def _read_start(file: Path) -> str:
    if file == STDIN:
        return sys.stdin.buffer.read(_MAX_KEY_BYTES).decode("ascii")
    with file.open("rb") as opened:
        return opened.read(_MAX_KEY_BYTES).decode("ascii")
