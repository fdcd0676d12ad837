"""Checks of paths: no placeholders or typographic quotes, and short enough for Unix sockets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from llama_gguf.errors import Problem
from llama_gguf.settings.locations import MAX_RUN_DIR_BYTES
from llama_gguf.settings.messages.hints import without_curly_quotes
from llama_gguf.settings.redaction import mask_text
from llama_gguf.settings.schema_tree import SettingPath, dotted, settings_schema
from llama_gguf.settings.sections.settings import Settings

_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*|\{\{.*\}\}")


def unexpanded(settings: Settings) -> Iterator[Problem]:
    """No `~`, `$HOME` or `{{ name }}` in a path: they are not expanded."""
    tree: JsonValue = settings.model_dump(mode="json", exclude_defaults=True)
    for path, text in _texts(tree, ()):
        node = settings_schema().at(path) or {}
        is_path = node.get("format") == "path"
        found = _VARIABLE.search(text) if is_path or path[-1] in ("url", "name", "host", "store") else None
        if found or (is_path and text.startswith("~")):
            what = found[0] if found else "~"
            message = f'{dotted(path)}: "{what}" is not expanded here'
            yield Problem(
                "not-filled-in", message, dotted(path), hint="write the full value, or set a LLAMA_GGUF__ variable"
            )


def quoted(settings: Settings) -> Iterator[Problem]:
    """No path, name or URL in typographic quotes, which would be part of it."""
    for path, text in _texts(settings.model_dump(mode="json", exclude_defaults=True), ()):
        plain = without_curly_quotes(text)
        node = settings_schema().at(path) or {}
        if plain != text and (node.get("format") == "path" or path[-1] in ("url", "name", "file")):
            message = f"{dotted(path)}: typographic quotes are part of the value in YAML"
            hint = f'did you mean "{mask_text(plain)}"?'
            yield Problem("curly-quotes", message, dotted(path), hint=hint)


def _texts(value: JsonValue, path: SettingPath) -> Iterator[tuple[SettingPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _texts(child, (*path, index))


def run_dir(settings: Settings) -> Iterator[Problem]:
    """Unix sockets are in the run directory, and their paths are limited in length."""
    length = len(settings.paths.run_dir.encode())
    if length > MAX_RUN_DIR_BYTES:
        message = f"paths.run_dir: is {length} bytes long; Unix sockets in it need at most {MAX_RUN_DIR_BYTES}"
        yield Problem("path-too-long", message, "paths.run_dir")
