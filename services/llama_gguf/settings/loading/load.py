"""The only reader of YAML, environment and flags: everything that was said -> one validated value, or every problem.

Precedence: defaults < file < platform variables and the old system's names < `LLAMA_GGUF__…` < `--set`. The rim is
one file read; all else is pure and lives in the modules this one joins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llama_gguf.errors import ConfigError, Problem
from llama_gguf.settings.checks import table
from llama_gguf.settings.gguf_file import MAGIC
from llama_gguf.settings.loading import environment
from llama_gguf.settings.loading import yaml_document as document
from llama_gguf.settings.loading.layers import Assignment, Merged, Origin, flatten, merge
from llama_gguf.settings.loading.origins import file_origin, parts, place, place_by_name
from llama_gguf.settings.loading.yaml_errors import Place
from llama_gguf.settings.messages.pydantic_errors import Found, translate, wrong_paths
from llama_gguf.settings.schema_tree import Path as SettingPath
from llama_gguf.settings.schema_tree import Shape, dotted, settings_shape
from llama_gguf.settings.sections.settings import Settings, parse

MAX_FILE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each value came from, and what is doubtful about them."""

    settings: Settings
    origins: Mapping[str, Origin]  # by dotted path; what is absent has its default
    problems: tuple[Problem, ...] = ()  # warnings only: errors raise
    text: str = ""  # the file as read, for showing lines of it
    file: Path | None = None

    def origin(self, path: str) -> Origin:
        """Return where the value at the dotted `path`, or the group it belongs to, came from."""
        return self.origins.get(path) or Origin("default")

    def placed(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return `problems` that know only their setting with the place that set it."""
        return tuple(place_by_name(problem, self.origins) for problem in problems)


class InvalidConfigError(ConfigError):
    """A configuration with errors: all problems (warnings too), and the text they point into."""

    def __init__(self, problems: Sequence[Problem], *, text: str = "", file: Path | None = None) -> None:
        errors = [problem for problem in problems if problem.severity == "error"]
        where = f"{file}: " if file else ""
        count = f"{len(errors)} error{'s' if len(errors) != 1 else ''} in the configuration"
        super().__init__(f"{where}{count}: {errors[0].message}" if errors else count, problems=tuple(problems))
        self.text = text
        self.file = file


@dataclass
class _Reading:
    """What has been read so far; one use."""

    shape: Shape
    document: document.Document = field(default_factory=document.Document)
    problems: list[Problem] = field(default_factory=list)

    def add(self, layer: environment.Layer) -> list[Assignment]:
        assignments, problems = layer
        self.problems += problems
        return assignments


def load(path: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate everything. Raises InvalidConfigError with all problems when there is an error among them."""
    text, unreadable = ("", None) if path is None else read_text(path)
    if unreadable:
        raise InvalidConfigError([unreadable], file=path)
    return loads(text, path, env, overrides)


def loads(text: str, path: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Do what `load` does with a text already read; `path` only names it. Pure."""
    reading = _Reading(settings_shape())
    if path is not None:
        reading.document = document.parse(text, str(path))
        reading.problems += reading.document.problems
    merged = _merge(reading, env, overrides, str(path))
    reading.problems += merged.problems
    broken = any(problem.code.startswith(_UNREADABLE) for problem in reading.problems)
    settings = None
    if not broken:
        settings, problems = _validate(merged, reading, str(path) if path else "")
        reading.problems += problems
    reading.problems += environment.doubtful_names(env, reading.shape)
    problems = _sorted(reading.problems)
    if settings is None or any(problem.severity == "error" for problem in problems):
        raise InvalidConfigError(problems, text=text, file=path)
    return Loaded(settings, _origins(merged, reading.document, str(path)), tuple(problems), text, path)


def _origins(merged: Merged, read: document.Document, source: str) -> dict[str, Origin]:
    """Return where everything was said, by dotted path; a group of the file where its name stands."""
    groups = {path[:end] for path in merged.origins for end in range(1, len(path))}
    found = {}
    for path, origin in merged.origins.items():
        named = path in groups and origin.kind == "file" and path in read.keys
        found[dotted(path)] = file_origin(source, read.keys[path]) if named else origin
    return found


_UNREADABLE = (
    "yaml-syntax",
    "yaml-tab",
    "yaml-character",
    "yaml-documents",
    "yaml-depth",
    "empty-file",
    "not-settings",
)


def read_text(path: Path) -> tuple[str, Problem | None]:
    """Read a configuration file: at most a megabyte of UTF-8."""
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "name the file with --config or LLAMA_GGUF_CONFIG"
        return "", Problem("file-missing", "no such file", source=source, hint=hint)
    except IsADirectoryError:
        return "", Problem("file-unreadable", "is a directory, not a file", source=source)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return "", Problem("file-unreadable", f"cannot be read: {reason}", source=source)
    if len(data) > MAX_FILE_BYTES:
        message = f"larger than {MAX_FILE_BYTES} bytes; a configuration is a few kilobytes"
        return "", Problem("file-too-large", message, source=source, hint="is this the right file?")
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return "", _not_utf8(data, error, source)


def _not_utf8(data: bytes, error: UnicodeDecodeError, source: str) -> Problem:
    before = data[: error.start]
    line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
    hint = "save the file as UTF-8"
    if data.startswith(MAGIC):
        hint = "name it in a configuration file: model: {path: …}"
        return Problem("not-utf8", "is a model, not a configuration", source=source, hint=hint)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Problem("not-utf8", "is UTF-16, not UTF-8", source=source, line=1, column=1, hint=hint)
    message = f"byte 0x{data[error.start]:02x} is not valid UTF-8"
    return Problem("not-utf8", message, source=source, line=line, column=column, hint=hint)


def _merge(reading: _Reading, env: Mapping[str, str], overrides: Sequence[str], source: str) -> Merged:
    shape = reading.shape
    file = _file_layer(reading.document, source)
    nested = reading.add(environment.nested_variables(env, shape))
    flagged = reading.add(environment.flags(overrides, shape))
    said = any(assignment.path == ("engine", "slots") for layer in (file, nested, flagged) for assignment in layer)
    old = reading.add(environment.old_variables(env, shape, slots_said=said))
    platform = reading.add(environment.platform_variables(env, shape))
    return merge([file, old, platform, nested, flagged])


def _file_layer(read: document.Document, source: str) -> list[Assignment]:
    layer = []
    for assignment in flatten(read.tree, Origin("file", source)):
        found = read.values.get(assignment.path) or Place(1, 1)
        layer.append(dataclasses.replace(assignment, origin=file_origin(source, found)))
    return layer


def _validate(merged: Merged, reading: _Reading, file: str) -> tuple[Settings | None, list[Problem]]:
    """Validate, then check across settings; with errors, check what is left when the wrong values are taken out."""
    shape, read = reading.shape, reading.document
    unread = {dotted(path) for path in read.unread}
    try:
        settings = parse(merged.tree)
    except ValidationError as error:
        found = [one for one in translate(error, shape) if not table.touches(dotted(one[0]), unread)]
        bad = wrong_paths(error, shape)
        found += _checked(_without(merged.tree, bad), unread | {dotted(path) for path in bad})
        return None, [place(problem, path, merged, read, file) for path, problem in found]
    problems = table.check(settings, skip=unread)
    return settings, [place(problem, parts(problem.path), merged, read, file) for problem in problems]


def _checked(tree: dict[str, Any], skip: set[str]) -> list[Found]:
    try:
        return [(parts(problem.path), problem) for problem in table.check(parse(tree), skip=skip)]
    except ValidationError:  # e.g. a required setting was taken out with its group: its own error is told already
        return []


def _without(tree: dict[str, Any], paths: set[SettingPath]) -> dict[str, Any]:
    """Return `tree` without what stands at `paths`; a list with a bad item goes as a whole."""
    cut = {path[: next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))] for path in paths}
    cut |= {path[:-1] for path in paths if path[-1:] in (("repo",), ("file",)) and path[-2:-1] == ("hf",)}

    def prune(node: dict[str, Any], here: SettingPath) -> dict[str, Any]:
        kept = {}
        for key, value in node.items():
            path = (*here, key)
            if path not in cut:
                kept[key] = prune(value, path) if isinstance(value, dict) else value
        return kept

    pruned = prune(tree, ())
    pruned.setdefault("model", {})
    return pruned


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    """Errors and warnings in the order of the file, then those of variables and flags."""
    return sorted(problems, key=lambda problem: (problem.line == 0, problem.line, problem.column, problem.source))
