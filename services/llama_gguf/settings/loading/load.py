"""The only reader of YAML, environment and flags: all of them -> one validated value, or every problem.

Precedence: defaults < file < legacy variables and platform variables < `LLAMA_GGUF__…` < `--set`. Reading the file is
the only I/O; the rest is pure, in the modules that this one combines.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llama_gguf.errors import ConfigError, Problem
from llama_gguf.settings.checks import table
from llama_gguf.settings.gguf_file import MAGIC
from llama_gguf.settings.loading import environment
from llama_gguf.settings.loading import yaml_document as document
from llama_gguf.settings.loading.layers import Assignment, Merged, Origin, flatten, merge, with_known_names
from llama_gguf.settings.loading.origins import file_origin, parts, with_origin, with_origin_by_name
from llama_gguf.settings.loading.yaml_errors import Position
from llama_gguf.settings.messages.pydantic_errors import Found, translate, wrong_paths
from llama_gguf.settings.schema_tree import SettingPath, SettingsSchema, dotted, settings_schema
from llama_gguf.settings.sections.settings import Settings, parse

MAX_FILE_BYTES = 1_048_576


_INHERITED = re.compile(r"models\.[^.]+\.engine(\..+)")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, the origin of each value, and warnings."""

    settings: Settings
    origins: Mapping[str, Origin]  # by dotted path; what is absent has the default
    problems: tuple[Problem, ...] = ()  # warnings only: errors raise
    text: str = ""  # the file as read, for showing lines of it
    file: Path | None = None

    def origin(self, path: str) -> Origin:
        """Return where the value at the dotted `path`, or the group it belongs to, came from."""
        found = self.origins.get(path)
        if found is None and (common := _INHERITED.match(path)):
            return self.origin(f"engine{common[1]}")  # what a model does not set itself
        return found or Origin("default")

    def with_origins(self, problems: Sequence[Problem]) -> tuple[Problem, ...]:
        """Return `problems` with the position of their setting, or the variable or flag that set it."""
        return tuple(with_origin_by_name(problem, self.origins) for problem in problems)


class InvalidConfigError(ConfigError):
    """A configuration with errors: all problems, including warnings, and the text that their line numbers refer to."""

    def __init__(self, problems: Sequence[Problem], *, text: str = "", file: Path | None = None) -> None:
        errors = [problem for problem in problems if problem.severity == "error"]
        where = f"{file}: " if file else ""
        count = f"{len(errors)} error{'s' if len(errors) != 1 else ''} in the configuration"
        super().__init__(f"{where}{count}: {errors[0].message}" if errors else count, problems=tuple(problems))
        self.text = text
        self.file = file


def load(path: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate everything. Raises InvalidConfigError with all problems when there is an error among them."""
    return loads(_read_text(path) if path else "", path, env, overrides)


def loads(text: str, path: Path | None, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Do what `load` does with a text already read; `path` only names it. Pure."""
    schema, file = settings_schema(), str(path) if path else ""
    read = document.parse(text, file) if path else document.Document()
    env, quoted = environment.unquoted(env)
    problems = [*read.problems, *quoted]
    merged = _merge(read, problems, env, overrides, str(path))
    problems += merged.problems
    settings = None
    if not any(problem.code.startswith(_UNREADABLE) for problem in problems):
        settings, invalid = _validate(merged, schema, read, file)
        problems += invalid
    problems += environment.doubtful_names(env, schema)
    # In the order of the file, then those of variables and flags.
    problems.sort(key=lambda problem: (problem.line == 0, problem.line, problem.column, problem.source))
    if settings is None or any(problem.severity == "error" for problem in problems):
        raise InvalidConfigError(problems, text=text, file=path)
    return Loaded(settings, _origins(merged, read, str(path)), tuple(problems), text, path)


def _origins(merged: Merged, read: document.Document, source: str) -> dict[str, Origin]:
    """Return the origin of everything, by dotted path; of a group in the file, the position of its key."""
    groups = {path[:end] for path in merged.origins for end in range(1, len(path))}
    found = {}
    for path, origin in merged.origins.items():
        named = path in groups and origin.kind == "file" and path in read.keys
        found[dotted(path)] = file_origin(source, read.keys[path]) if named else origin
    return found


_MEANT_MODEL = ('did you mean "model"?', 'did you mean "models"?')
_UNREADABLE = (
    "yaml-syntax",
    "yaml-tab",
    "yaml-character",
    "yaml-documents",
    "yaml-depth",
    "empty-file",
    "not-settings",
)


def _read_text(path: Path) -> str:
    """Read a configuration file: UTF-8, at most a megabyte. Raises InvalidConfigError."""

    def failed(code: str, message: str, hint: str = "") -> InvalidConfigError:
        return InvalidConfigError([Problem(code, message, source=str(path), hint=hint)], file=path)

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise failed("file-missing", "no such file", "set the path with --config or LLAMA_GGUF_CONFIG") from None
    except IsADirectoryError:
        raise failed("file-unreadable", "is a directory, not a file") from None
    except OSError as error:
        raise failed("file-unreadable", f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_FILE_BYTES:
        message = f"larger than {MAX_FILE_BYTES} bytes; a configuration is a few kilobytes"
        raise failed("file-too-large", message, "is this the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfigError([_not_utf8(data, error, str(path))], file=path) from None


def _not_utf8(data: bytes, error: UnicodeDecodeError, source: str) -> Problem:
    before = data[: error.start]
    line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
    hint = "save the file as UTF-8"
    if data.startswith(MAGIC):
        hint = "set its path in a configuration file: model: {path: …}"
        return Problem("not-utf8", "is a model, not a configuration", source=source, hint=hint)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Problem("not-utf8", "is UTF-16, not UTF-8", source=source, line=1, column=1, hint=hint)
    message = f"byte 0x{data[error.start]:02x} is not valid UTF-8"
    return Problem("not-utf8", message, source=source, line=line, column=column, hint=hint)


def _merge(
    read: document.Document, problems: list[Problem], env: Mapping[str, str], overrides: Sequence[str], source: str
) -> Merged:
    """Merge all layers; what is wrong with a variable or a flag is added to `problems`."""
    schema = settings_schema()

    def layer(found: environment.Found) -> list[Assignment]:
        both = list(found)
        problems.extend(one for one in both if isinstance(one, Problem))
        return [one for one in both if isinstance(one, Assignment)]

    file = _file_layer(read, source)
    nested = with_known_names(layer(environment.nested_variables(env, schema)), file)
    flagged = layer(environment.flags(overrides, schema))
    slots_set = any(assignment.path == ("engine", "slots") for layer in (file, nested, flagged) for assignment in layer)
    legacy = layer(environment.legacy_variables(env, schema, slots_set=slots_set))
    platform = layer(environment.platform_variables(env, schema))
    return merge([file, legacy, platform, nested, flagged])


def _file_layer(read: document.Document, source: str) -> list[Assignment]:
    layer = []
    for assignment in flatten(read.tree, Origin("file", source)):
        found = read.values.get(assignment.path) or Position(1, 1)
        layer.append(dataclasses.replace(assignment, origin=file_origin(source, found)))
    return layer


def _validate(
    merged: Merged, schema: SettingsSchema, read: document.Document, file: str
) -> tuple[Settings | None, list[Problem]]:
    """Validate, then check between settings; if there are errors, check the rest without the invalid values."""
    unread = {dotted(path) for path in read.unread}
    try:
        settings = parse(merged.tree)
    except ValidationError as error:
        found = [one for one in translate(error, schema) if not table.touches(dotted(one[0]), unread)]
        bad = wrong_paths(error, schema)
        misspelt = "models" in merged.tree or any(problem.hint in _MEANT_MODEL for _, problem in found)
        found += [
            (path, problem)
            for path, problem in _checked(_without(merged.tree, bad), unread | {dotted(path) for path in bad})
            if not (misspelt and problem.code == "no-model")
        ]
        return None, [with_origin(problem, path, merged, read, file) for path, problem in found]
    problems = table.check(settings, skip=unread)
    return settings, [with_origin(problem, parts(problem.path), merged, read, file) for problem in problems]


def _checked(tree: dict[str, Any], skip: set[str]) -> list[Found]:
    try:
        return [(parts(problem.path), problem) for problem in table.check(parse(tree), skip=skip)]
    except ValidationError:  # e.g. a required setting was removed with its group: its own error is already reported
        return []


def _without(tree: dict[str, Any], paths: set[SettingPath]) -> dict[str, Any]:
    """Return `tree` without the values at `paths`; a list with an invalid item is removed completely."""
    removed = {path[: next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))] for path in paths}
    removed |= {path[:-1] for path in paths if path[-1:] in (("repo",), ("file",)) and path[-2:-1] == ("hf",)}

    def prune(node: dict[str, Any], here: SettingPath) -> dict[str, Any]:
        kept = {}
        for key, value in node.items():
            path = (*here, key)
            if path not in removed:
                kept[key] = prune(value, path) if isinstance(value, dict) else value
        return kept

    return prune(tree, ())
