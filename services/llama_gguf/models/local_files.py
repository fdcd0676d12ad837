"""Files that should be on disk: finding them by name, and errors that say what is there instead."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.header import Header, read_header
from llama_gguf.models.gguf.known_architectures import UPDATE_HINT, problem_of
from llama_gguf.models.source import Named, OnDisk, split_names
from llama_gguf.settings.gguf_file import (
    BEGINNING_BYTES,
    GGUF_HINT,
    SUFFIX,
    described,
    has_suffix,
    named_file,
    possible_names,
)
from llama_gguf.settings.words import closest

Role = Literal["model", "mmproj", "draft", "lora"]

_UNFINISHED = (".part", ".incomplete", ".download", ".aria2", ".crdownload", ".tmp")
_MAX_LISTED = 10


def find_local(origin: OnDisk | Named, setting: str) -> Path:
    """Return a file that should be on disk. Raises a permanent ModelError if it is not, or cannot be read."""
    if isinstance(origin, Named):
        return find_named(origin, f"{setting}.name")
    check_readable(origin.path, f"{setting}.path")
    return origin.path


def check_readable(path: Path, setting: str) -> None:
    """Raise a permanent ModelError unless `path` is a file that this process can read."""
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
    except FileNotFoundError:
        hint = ""
        if path.is_symlink():
            hint = f"it is a link to {path.readlink()}, which does not exist"
        elif names := _listing(path.parent):
            hint = _instead(path.name, names, str(path.parent))
        raise ModelError(f"{setting}: {path} does not exist", code="model_not_found", hint=hint) from None
    except OSError as error:
        raise ModelError(
            f"{setting}: {path} cannot be read: {error.strerror}",
            code="model_not_readable",
            hint="make the file readable by the user the appliance runs as, and every directory above it searchable",
        ) from error
    if stat.S_ISDIR(mode):
        hint = _instead("", _listing(path), "it")
        raise ModelError(f"{setting}: {path} is a directory, not a file", code="model_not_a_file", hint=hint)
    if not stat.S_ISREG(mode):
        raise ModelError(
            f"{setting}: {path} is not a regular file", code="model_not_a_file", hint="name a file on a disk"
        )


def _listing(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except OSError:
        return []


def find_named(named: Named, setting: str) -> Path:
    """Return the file in the models directory for `named`, whose suffix is optional."""
    if not os.path.isdir(named.directory):  # noqa: PTH112 - Path.is_dir raises where a folder above is closed
        raise ModelError(
            f"{setting}: there is no models directory {named.directory}",
            code="model_directory_missing",
            hint="create it and put the model there, or set paths.models_dir",
        )
    path = named_file(named.directory, named.name)
    if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - as above
        check_readable(path, setting)
        return path
    there = (str(path.relative_to(named.directory)) for path in named.directory.rglob("*"))
    raise ModelError(
        f"{setting}: {named.name} is not in {named.directory}",
        code="model_not_found",
        hint=_instead(named.name, there, str(named.directory)),
    )


def _instead(name: str, names: Iterable[str], place: str) -> str:
    """Return a hint: the unfinished download of `name`, a similar name, or what is there."""
    names = list(names)
    for suffix in _UNFINISHED:
        if name and any(possible + suffix in names for possible in possible_names(name)):
            return f"there is an unfinished download of it ({suffix})"
    models = sorted(other for other in names if has_suffix(other))
    if near := closest(name, models):
        return f"did you mean {near}?"
    more = f" and {len(models) - _MAX_LISTED} more" if len(models) > _MAX_LISTED else ""
    return f"{place} has {', '.join(models[:_MAX_LISTED])}{more}" if models else f"{place} has no GGUF files"


def check_model(path: Path, setting: str, role: Role) -> Header:
    """Return the header of `path`. Raises a permanent ModelError unless it is a complete GGUF file for its `role`."""
    header = _read(path, setting)
    _check_complete(header, setting)
    count = header.number("split.count")
    if count > 1:
        _check_parts(path, setting, header.number("split.no"), count)
    found = _role_of(header)
    expected = "model" if role == "draft" else role
    if found != expected:
        raise ModelError(
            f"{setting}: {path} is {_ROLE_NAMES[found]}, not {_ROLE_NAMES[expected]}",
            code="model_wrong_kind",
        )
    if found == "model" and (problem := problem_of(header)):
        raise ModelError(f"{setting}: {path}: {problem}", code="model_unsupported", hint=UPDATE_HINT)
    return header


def _read(path: Path, setting: str) -> Header:
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
    if kind := described(beginning):
        hint = "run `git lfs pull` in its repository" if "LFS" in kind else GGUF_HINT
        raise ModelError(f"{setting}: {path} is {kind}, not a GGUF file", code="model_not_gguf", hint=hint)
    try:
        return read_header(path)
    except ModelError as error:
        raise ModelError(f"{setting}: {error.message}", code=error.code, hint=error.hint) from error


_ROLE_NAMES: dict[Role, str] = {
    "model": "a language model",
    "mmproj": "a multimodal projector",
    "draft": "a draft model",
    "lora": "a LoRA adapter",
}


def _role_of(header: Header) -> Role:
    kind = header.text("general.type", "model")
    if kind == "adapter":
        return "lora"
    return "mmproj" if kind == "mmproj" or header.architecture == "clip" else "model"


def _check_complete(header: Header, setting: str) -> None:
    missing = header.end_of_data - header.file_bytes
    if missing > 0:
        raise ModelError(
            f"{setting}: {header.path} is incomplete: {header.file_bytes} of {header.end_of_data} bytes",
            code="model_incomplete",
            hint="its download or copy was not finished; download it again",
        )


def _check_parts(path: Path, setting: str, number: int, count: int) -> None:
    names = split_names(path.name)
    if len(names) != count:
        raise ModelError(
            f"{setting}: {path} is part {number + 1} of {count}, but not named so",
            code="model_split",
            hint=f"retain the original names, which end in -00001-of-{count:05}{SUFFIX}",
        )
    if path.name != names[0]:
        raise ModelError(
            f"{setting}: {path} is part {number + 1} of {count}", code="model_split", hint=f"name the first: {names[0]}"
        )
    for name in names[1:]:
        part = path.with_name(name)
        check_readable(part, setting)
        _check_complete(_read(part, setting), setting)
