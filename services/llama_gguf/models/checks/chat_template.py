"""Whether a file can be a chat template: text, whose Jinja tags are closed and nest as llama-server requires.

A scan and not a parser: what is inside a tag is read only as far as its strings and brackets. llama-server refuses all
that is refused here, but only after the weights have been downloaded and for reasons that it does not name.
"""

from __future__ import annotations

import re
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.local_files import check_readable
from llama_gguf.settings.gguf_file import MAGIC

MAX_BYTES = 4 * 1024 * 1024  # the longest that are published have 20 KB
_BLOCKS = {"if": "endif", "for": "endfor", "macro": "endmacro", "call": "endcall", "filter": "endfilter"}
_INSIDE = {"elif": ("if",), "else": ("if", "for")}
_ENDS = {end: begin for begin, end in _BLOCKS.items()} | {"endset": "set"}
_OPENING = re.compile(r"\{[{%#]")
_WORD = re.compile(r"[-+]?\s*(\w+)")
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<quote>["'])|[-+]?%\}|\}\}|[{}]""", re.DOTALL
)
_ASSIGNED = re.compile(r"(?<![=!<>])=(?!=)")


def check_chat_template(path: Path, setting: str) -> None:
    """Raise a permanent ModelError unless `path` is a file that can be a chat template."""
    check_readable(path, setting)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if content.startswith(MAGIC):
        hint = "name a text file, or remove the setting: llama-server uses the template in the model"
        raise _error(f"{setting}: {path} is a GGUF file, not a chat template", hint)
    if len(content) > MAX_BYTES:
        raise _error(f"{setting}: {path} has more than {MAX_BYTES >> 20} MiB, too much for a chat template", _HINT)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _error(f"{setting}: {path} is not text: byte {error.start} is not UTF-8", _HINT) from None
    if "\0" in text:
        raise _error(f"{setting}: {path} is not text: it has a zero byte", _HINT)
    if not text.strip():
        raise _error(f"{setting}: {path} is empty", _HINT)
    if wrong := syntax_error(text):
        raise _error(f"{setting}: {path}:{wrong}", "correct the template, or take it from the model card again")


_HINT = "name the file of a Jinja template, as from the model card, or remove the setting"


def _error(message: str, hint: str) -> ModelError:
    return ModelError(message, code="template_unusable", hint=hint)


def syntax_error(text: str) -> str:
    """Return `LINE: what is wrong` with the first tag that is wrong; "" if none is."""
    open_blocks: list[tuple[str, int]] = []
    position = 0
    while opening := _OPENING.search(text, position):
        kind, start = opening.group(), opening.end()
        if kind == "{#":
            position = text.find("#}", start) + 2
            closed = position > start
        else:
            position = _end_of_tag(text, start, "}}" if kind == "{{" else "%}")
            closed = position > 0
        if not closed:
            return f"{_line(text, start)}: {kind} is not closed"
        if kind == "{%" and (wrong := _nest(text[start : position - 2], start, open_blocks)):
            return f"{_line(text, start)}: {wrong}"
    if open_blocks:
        name, start = open_blocks[-1]
        return f"{_line(text, start)}: {{% {name} %}} has no {{% end{name} %}}"
    return ""


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _end_of_tag(text: str, position: int, closing: str) -> int:
    """Return where the tag ends whose content begins at `position`; -1 if it does not."""
    depth = 0
    while token := _TOKEN.search(text, position):
        position, found = token.end(), token.group().lstrip("-+")
        if token["quote"]:
            return -1
        if found == closing and (closing == "%}" or not depth):
            return position
        if found == "}}":  # within an object
            position -= 1
            depth -= 1
        elif found in "{}":
            depth += 1 if found == "{" else -1
    return -1


def _nest(tag: str, start: int, open_blocks: list[tuple[str, int]]) -> str:
    """Open or close the block of a statement; return what is wrong with it."""
    word = _WORD.match(tag.lstrip())
    name = word[1] if word else ""
    innermost = open_blocks[-1][0] if open_blocks else ""
    if name in _BLOCKS or (name == "set" and not _ASSIGNED.search(tag)):
        open_blocks.append((name, start))
    elif name in _ENDS:
        if innermost != _ENDS[name]:
            return f"{{% {name} %}} closes {f'{{% {innermost} %}}' if innermost else 'nothing'}"
        open_blocks.pop()
    elif name in _INSIDE and innermost not in _INSIDE[name]:
        return f"{{% {name} %}} is outside of {{% {_INSIDE[name][0]} %}}"
    return ""
