"""Checks of this machine: files and variables that the settings name. Reads files, changes nothing.

The files of models belong to `models.checks`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from llama_gguf.errors import Problem
from llama_gguf.settings.environment_value import QUOTES_HINT, clean
from llama_gguf.settings.locations import Locations, can_write
from llama_gguf.settings.one_model import each_model
from llama_gguf.settings.redaction import shown_secret_file, shown_variable
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import artifacts_of, key_sources_of


def check_files(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return every problem between the settings of the appliance and this machine."""
    return [
        *_named_file("auth.bootstrap.file", settings.auth.bootstrap.file),
        *_directories(settings, locations),
        *_keys(settings, locations),
        *_variables(settings, env),
    ]


def check_engine_files(settings: Settings) -> list[Problem]:
    """Return every problem between the engine settings of one model and this machine."""
    return list(_named_file("engine.binary", settings.engine.binary))


def _named_file(setting: str, text: str | None) -> Iterator[Problem]:
    if text is None:
        return
    file = Path(text)
    shown = shown_secret_file(text) if setting == "auth.bootstrap.file" else text
    if not file.is_file():
        reason = "is a directory" if file.is_dir() else "does not exist"
        yield Problem("file-missing", f"{setting}: {shown} {reason}", setting)
    elif not os.access(file, os.R_OK):
        yield Problem("file-unreadable", f"{setting}: {shown} cannot be read by uid {os.getuid()}", setting)
    elif setting == "engine.binary" and not os.access(file, os.X_OK):
        yield Problem("not-executable", f"{setting}: {file} is not executable", setting, hint=f"chmod +x {file}")


def _directories(settings: Settings, locations: Locations) -> Iterator[Problem]:
    given = settings.paths
    named = (
        ("paths.data_dir", locations.data_dir if given.data_dir != "auto" else None),
        ("paths.logs_dir", locations.logs_dir if given.logs_dir else None),
        ("paths.run_dir", locations.run.root if given.run_dir != "auto" else None),
    )
    for setting, directory in named:
        if directory is not None and directory.exists() and not directory.is_dir():
            yield Problem("not-a-directory", f"{setting}: {directory} is a file", setting)
        elif directory is not None and not can_write(directory):
            message = f"{setting}: {directory} is not writable by uid {os.getuid()}"
            yield Problem("not-writable", message, setting, hint="change its owner, or mount it read-write")
    by_name = any(artifact.name for one in each_model(settings) for _, artifact in artifacts_of(one.settings.model))
    if given.models_dir is not None and not locations.models_dir.is_dir() and not by_name:
        message = f"paths.models_dir: {locations.models_dir} does not exist"
        yield Problem("models-dir-missing", message, "paths.models_dir", severity="warning")


def _keys(settings: Settings, locations: Locations) -> Iterator[Problem]:
    if not settings.auth.enabled:
        return
    file = locations.keys_file
    if file.is_dir():
        yield Problem("keys-file-unreadable", f"auth.keys_file: {file} is a directory", "auth.keys_file")
    elif not file.exists():
        if not key_sources_of(settings.auth.bootstrap):
            message = f"auth.keys_file: {file} does not exist, so every request will be rejected"
            hint = "create a key with `llama-gguf keys generate`, or set auth.bootstrap"
            yield Problem("no-keys", message, "auth.keys_file", hint=hint, severity="warning")
    elif not os.access(file, os.R_OK):
        message = f"auth.keys_file: {file} cannot be read by uid {os.getuid()}"
        yield Problem("keys-file-unreadable", message, "auth.keys_file")
    elif file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        hint = f"chmod 600 {file}; if the file system has no modes, move the file to one that has"
        message = f"auth.keys_file: {file} is readable by other users (mode {stat.S_IMODE(file.stat().st_mode):04o})"
        yield Problem("keys-file-open", message, "auth.keys_file", hint=hint, severity="warning")


def _variables(settings: Settings, env: Mapping[str, str]) -> Iterator[Problem]:
    yield from variable_problems("limits.store_password_env", settings.limits.store_password_env, env)
    if settings.auth.enabled:
        yield from variable_problems("auth.bootstrap.env", settings.auth.bootstrap.env, env)


def variable_problems(
    setting: str, name: str | None, env: Mapping[str, str], *, needed: bool = False
) -> Iterator[Problem]:
    """Yield what is wrong with the variable that a setting names; if it is `needed`, nothing starts without it."""
    if name is None:
        return
    value, shown = clean(env.get(name, "")), shown_variable(name)
    if not value.text:
        hint = "set the variable to the token, or remove the setting" if needed else ""
        if shown != name:
            hint = f"if the value of {setting} is the secret itself, put it in a variable and give that one's name"
        message = f"{setting}: the variable {shown} is not set"
        yield Problem("variable-unset", message, setting, hint=hint, severity="error" if needed else "warning")
    elif value.removed:
        message = f"{setting}: {value.removed} around the value of {shown} are ignored"
        yield Problem("quoted-variable", message, setting, hint=QUOTES_HINT, severity="warning")
