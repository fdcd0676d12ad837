"""Checks of this machine: files and variables that the settings name. Reads files, changes nothing.

Reading the model's header belongs to `models`, so it is passed as a function and not imported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from llama_gguf.errors import LaunchError, ModelError, Problem
from llama_gguf.settings.checks.model_facts import ModelFacts, model_problems
from llama_gguf.settings.environment_value import QUOTES_HINT, clean
from llama_gguf.settings.gguf_file import MAGIC, SUFFIX, has_suffix, named_file
from llama_gguf.settings.locations import Locations, can_write
from llama_gguf.settings.redaction import shown_secret_file, shown_variable
from llama_gguf.settings.sections.model import Artifact
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import artifacts_of, key_sources_of
from llama_gguf.settings.words import closest

ReadModel = Callable[[Settings, Locations], ModelFacts | None]
"""Reads the model's header; None if the file is not downloaded yet. Raises ModelError for a corrupt one."""


def check_files(
    settings: Settings,
    locations: Locations,
    env: Mapping[str, str],
    *,
    read_model: ReadModel | None = None,
) -> list[Problem]:
    """Return every problem between the settings and this machine."""
    problems = [
        *_weights(settings, locations),
        *_named_files(settings),
        *_directories(settings, locations),
        *_keys(settings, locations),
        *_variables(settings, env),
    ]
    if read_model is not None and not any(problem.path.startswith("model") for problem in problems):
        problems += _header(settings, locations, read_model)
    return problems


def unusable_variant(error: LaunchError) -> Problem:
    """Return the problem of a pinned CPU variant that `engine` has rejected."""
    return Problem("cpu-variant-unusable", error.message, "engine.cpu_variant", hint=error.hint)


def _weights(settings: Settings, locations: Locations) -> Iterator[Problem]:
    for path, artifact in artifacts_of(settings.model):
        if artifact.path is not None:
            setting, file = f"{path}.path", Path(artifact.path)
        elif artifact.name is not None:
            setting, file = f"{path}.name", named_file(locations.models_dir, artifact.name)
            if not locations.models_dir.is_dir():
                message = f"{setting}: the models directory {locations.models_dir} does not exist"
                unset = settings.paths.models_dir is None
                hint = "set paths.models_dir, or the whole path in model.path" if unset else "see paths.models_dir"
                yield Problem("models-dir-missing", message, setting, hint=hint)
                continue
        else:
            continue
        yield from _gguf(setting, file, artifact)


def _gguf(setting: str, file: Path, artifact: Artifact) -> Iterator[Problem]:
    if file.is_dir():
        yield Problem("model-unreadable", f"{setting}: {file} is a directory", setting, hint=_nearby(file, ""))
    elif not file.exists():
        hint = _nearby(file.parent, file.name)
        yield Problem("model-missing", f"{setting}: {file} does not exist", setting, hint=hint)
    elif not os.access(file, os.R_OK):
        hint = f"it must be readable by uid {os.getuid()}"
        yield Problem("model-unreadable", f"{setting}: {file} cannot be read", setting, hint=hint)
    elif (start := _start(file)) != MAGIC:
        message = f"{setting}: {file} is not a GGUF file"
        hint = "it is a Git LFS pointer, not the model: run `git lfs pull`" if start == b"vers" else ""
        yield Problem("model-not-gguf", message, setting, hint=hint or "its first four bytes are not GGUF")


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(MAGIC))


def _nearby(directory: Path, name: str) -> str:
    """Say which GGUF files exist: the one with the most similar name, or the first few."""
    if not directory.is_dir():
        return f"{directory} does not exist either"
    try:
        found = sorted(entry.name for entry in directory.iterdir() if has_suffix(entry.name))
    except OSError:
        return ""
    by_stem = {file[: -len(SUFFIX)]: file for file in found}
    if near := closest(name.removesuffix(SUFFIX), by_stem):
        return f'did you mean "{by_stem[near]}"?'
    return f"it contains {', '.join(found[:5])}" if found else f"{directory} contains no GGUF file"


def _named_files(settings: Settings) -> Iterator[Problem]:
    named = (
        ("model.chat_template", settings.model.chat_template),
        ("auth.bootstrap.file", settings.auth.bootstrap.file),
        ("engine.binary", settings.engine.binary),
    )
    for setting, text in named:
        if text is None:
            continue
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
    if given.models_dir is not None and not locations.models_dir.is_dir() and settings.model.name is None:
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
    needed = [("limits.store_password_env", settings.limits.store_password_env)]
    if settings.auth.enabled:
        needed.append(("auth.bootstrap.env", settings.auth.bootstrap.env))
    needed += [(f"{path}.token_env", artifact.token_env) for path, artifact in artifacts_of(settings.model)]
    for setting, name in needed:
        if name is None:
            continue
        value = clean(env.get(name, ""))
        if not value.text:
            yield Problem(
                "variable-unset",
                f"{setting}: the variable {shown_variable(name)} is not set",
                setting,
                severity="warning",
            )
        elif value.removed:
            message = f"{setting}: {value.removed} around the value of {shown_variable(name)} are ignored"
            yield Problem("quoted-variable", message, setting, hint=QUOTES_HINT, severity="warning")


def _header(settings: Settings, locations: Locations, read_model: ReadModel) -> list[Problem]:
    try:
        facts = read_model(settings, locations)
    except ModelError as error:
        return [Problem("model-unusable", f"model: {error.message}", "model", hint=error.hint)]
    if facts is None:
        return []
    default = "context_per_slot" not in settings.engine.model_fields_set
    return model_problems(settings, facts, context_is_default=default)
