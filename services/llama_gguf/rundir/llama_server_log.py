"""llama-server's output -> lines of our log: marked as its own, without control characters and what clients sent.

Pure. Nothing that a client sends can end a line here, begin one, or look like another program's: text lines begin with
`llama-server | `, JSON lines are objects of ours. Messages come one JSON object each (`--log-jsonl`), so that a message
with newlines is one; llama.cpp also prints a grammar that it cannot parse straight to stderr, over any number of lines
(src/llama-grammar.cpp). What follows such a print is withheld, unless it says why the process ends.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Literal

from llama_gguf.logs import clean, escape_for_json
from llama_gguf.timestamps import utc_text

FOLLOWS = b"\x1ellama-server's output follows"
"""Our engine program writes this line just before it becomes llama-server; no log line of ours has its first byte."""
TEXT_MARK = "llama-server | "
MAX_LINE_BYTES = 8192
_WITHHELD = "(withheld: from a request)"

# Messages that quote a request, up to where the quotation begins.
_QUOTING = re.compile(
    r"""^.*?(?:
    got\ exception:|got\ another\ exception:|error\ parsing\ grammar:|error\ printing\ grammar:
    |task\ id\ =\ -?\d+,\ error:|error\ initializing\ grammar\ sampler|failed\ to\ apply\ template:
    |Ignoring\ (?:non-text\ )?content\ part(?:\ type)?:|Tool\ call\ mismatch:|unparsed\ .{0,40}?\ output:
    |unsupported\ Responses\ tool\ type|anthropic\ string\ not\ as\ expected:
    |downloading\ image\ from|loading\ image\ from\ local\ file|skip\ non-localhost\ origin:|conv_id=
    |unable\ to\ match\ sampler\ by\ (?:name|char)|JSON\ schema\ conversion\ was\ incomplete:|sampler\ params:
    |AST\ for\ \w+\ parse
    )""",
    re.VERBOSE,
)
_ENDS = re.compile(
    r"GGML_ASSERT\(|GGML_ABORT|terminate called|^\s*what\(\):|CUDA error|error while loading shared libraries|"
    r"failed to (?:load|open)|out of memory|No space left on device|ggml_abort|[Ss]egmentation fault"
)
_LEVELS = {"debug": "D", "info": "I", "warn": "W", "error": "E"}
_OUR_LEVELS = {"warn": "warning", "cont": "info", "none": "info"}


class LlamaServerLog:
    """The output of one process, from our engine program's first line to llama-server's last.

    Returns our own program's lines unchanged; those come before `FOLLOWS`, when no request has been read.
    """

    def __init__(
        self,
        log_format: Literal["text", "json"],
        program: str = "engine",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._format = log_format
        self._program = program
        self._clock = clock
        self._partial = b""
        self._cut = False  # the rest of a line that was longer than the limit is dropped
        self._llama_server = False
        self._quoting = False

    def feed(self, data: bytes) -> bytes:
        """Return the lines that `data` completes, each with its newline."""
        *complete, rest = (self._partial + data).split(b"\n")
        lines = []
        for line in complete:
            if not self._cut:
                lines.append(self._rendered(line))
            self._cut = False
        if self._cut:
            rest = b""
        elif len(rest) > 8 * MAX_LINE_BYTES:
            lines.append(self._rendered(rest))
            rest, self._cut = b"", True
        self._partial = rest
        return b"".join(lines)

    def end(self) -> bytes:
        """Return what is left when the process has exited."""
        rest, self._partial = self._partial, b""
        return self._rendered(rest) if rest else b""

    def _rendered(self, line: bytes) -> bytes:
        if not self._llama_server:
            if line == FOLLOWS:
                self._llama_server = True
                return b""
            return line + b"\n"
        found = _message(line)
        if found is None:
            level, text = "none", line.decode("utf-8", "replace")
            if self._quoting and not _ENDS.search(text):
                return b""
            self._quoting = self._quoting or _QUOTING.search(text) is not None
        else:
            level, text = found
        text = _without_request(text)
        return self._written(level, text) if text.strip(". ") else b""

    def _written(self, level: str, text: str) -> bytes:
        text = clean(text)
        if len(text) > MAX_LINE_BYTES // 4:  # a character has at most four bytes
            text = text[: MAX_LINE_BYTES // 4] + "..."
        if self._format == "text":
            letter = _LEVELS.get(level)
            return f"{TEXT_MARK}{letter + ' ' if letter else ''}{text}\n".encode()
        event = {
            "ts": utc_text(self._clock(), "milliseconds"),
            "level": _OUR_LEVELS.get(level, level),
            "program": self._program,
            "source": "llama-server",
            "event": text,
        }
        return escape_for_json(json.dumps(event, ensure_ascii=False)).encode() + b"\n"


def _message(line: bytes) -> tuple[str, str] | None:
    """Return level and message of a line of `--log-jsonl`; None for a line printed past llama-server's logger."""
    if not line.startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    level, message = found.get("level"), found.get("msg")
    if not isinstance(message, str) or level not in (*_LEVELS, "cont", "none"):
        return None
    return level, message


def _without_request(text: str) -> str:
    """Return a message's first line, up to where it quotes a request."""
    first, _, more = text.strip("\n").partition("\n")
    if quoting := _QUOTING.search(first):
        return f"{quoting[0]} {_WITHHELD}"
    return f"{first} (more lines withheld)" if more.strip() else first
