"""Audio uploads: parses a multipart/form-data body and re-encodes it for the engine. Pure.

The engine converts all fields of a form to JSON and processes that as a chat request, and its parser might differ from
this one. So only the known fields and the file are extracted, and encoded as a new form with a boundary of our own:
what was checked is what the engine sees. The file is searched for the boundary and copied once, never parsed.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llama_gguf.api_errors import GatewayError

MAX_PARTS = 64
MAX_PART_HEAD_BYTES = 4096
MAX_FIELD_BYTES = 65_536

_BOUNDARY = re.compile(
    rb'multipart/form-data\s*;\s*(?:.*;\s*)?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:[ \t]*form-data[ \t]*(;[^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(rb'[ \t]*;[ \t]*([\w!#$%&\'*+.^`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_QUOTED = re.compile(rb"\\(.)")
_PADDING = re.compile(rb"[ \t]*(?=\r\n|--)")
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_COUNT = re.compile(r"[0-9]{1,9}")
_TEXTS = frozenset({"model", "prompt", "language", "response_format", "stream"})
_TAKEN = _TEXTS | {"temperature", "max_tokens"}


class Form(NamedTuple):
    """The fields that are passed to the engine, and the file."""

    fields: dict[str, str]
    file: bytes

    @property
    def stream(self) -> bool:
        """Whether the response is to be streamed; the engine treats anything but `true` as false."""
        return self.fields.get("stream") == "true"

    @property
    def max_tokens(self) -> int | None:
        """The maximum length of the completion, None if the form does not limit it."""
        value = self.fields.get("max_tokens")
        return None if value is None else int(value)

    def encode(self) -> tuple[bytes, bytes]:
        """Return Content-Type and body of the form for the engine."""
        boundary = b"llama-gguf-" + os.urandom(16).hex().encode()
        parts = [
            b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
            % (boundary, name.encode(), value.encode())
            for name, value in self.fields.items()
        ]
        head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="audio"\r\n\r\n' % boundary
        body = b"".join([*parts, head, self.file, b"\r\n--%b--\r\n" % boundary])
        return b"multipart/form-data; boundary=" + boundary, body


def read_form(body: bytes, content_type: bytes) -> Form:
    """Parse a multipart/form-data body. Unknown fields are dropped. Raises GatewayError 400."""
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise _bad("Send the file as multipart/form-data.")
    boundary = b"--" + (match[1] or match[2])
    fields: dict[str, str] = {}
    file: bytes | None = None
    separator = b"\r\n" + boundary
    at = _first_part(body, boundary)
    for _ in range(MAX_PARTS):
        if body.startswith(b"--", at):
            break
        name, start = _part_head(body, at)
        end = body.find(separator, start)
        if end < 0:
            raise _bad("The multipart body has no closing boundary.")
        if name == "file":
            if file is not None:
                raise _bad("Only one file is allowed.", "file")
            file = body[start:end]
        elif name in _TAKEN:
            if name in fields:
                raise _bad("The field must not be repeated.", name)
            fields[name] = _value(name, body[start:end])
        at = end + len(separator)
    else:
        raise _bad(f"The multipart body has more than {MAX_PARTS} parts.")
    if file is None:
        raise _bad("The file is missing.", "file")
    return Form(fields, file)


def _first_part(body: bytes, boundary: bytes) -> int:
    """Return the offset behind the first boundary. A preamble may precede it (RFC 2046): .NET sends a line end."""
    if body.startswith(boundary):
        return len(boundary)
    found = body.find(b"\r\n" + boundary, 0, MAX_PART_HEAD_BYTES)
    if found < 0:
        raise _bad("The multipart body does not begin with its boundary.")
    return found + 2 + len(boundary)


def _part_head(body: bytes, at: int) -> tuple[str, int]:
    """Return the name of the part at offset `at`, and the offset of its content."""
    padding = _PADDING.match(body, at, at + MAX_PART_HEAD_BYTES)
    at = padding.end() if padding is not None else at
    end = body.find(b"\r\n\r\n", at, at + MAX_PART_HEAD_BYTES)
    if end < 0 or not body.startswith(b"\r\n", at):
        raise _bad("A part of the multipart body has no valid headers.")
    disposition = _DISPOSITION.search(body, at, end)
    names = _names(disposition[1]) if disposition is not None else set()
    if len(names) != 1:
        raise _bad("A part of the multipart body has no name, or several.")
    return names.pop(), end + 4


def _names(parameters: bytes) -> set[str]:
    """Return what a Content-Disposition names its part: quoted, bare (.NET) or percent-encoded (`name*`, RFC 5987)."""
    found = set()
    at = 0
    while (parameter := _PARAMETER.match(parameters, at)) is not None:
        at = parameter.end()
        name, quoted, bare = parameter.groups()
        value = bare if quoted is None else _QUOTED.sub(rb"\1", quoted)
        if name.lower() == b"name":
            found.add(value.decode("latin-1"))
        elif name.lower() == b"name*":
            found.add(unquote_to_bytes(value.rpartition(b"'")[2]).decode("latin-1"))
    return found


def _value(name: str, value: bytes) -> str:
    if len(value) > MAX_FIELD_BYTES:
        raise _bad(f"The value is longer than {MAX_FIELD_BYTES} bytes.", name)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _bad("The value must be UTF-8.", name) from None
    if name == "max_tokens" and not _COUNT.fullmatch(text):
        raise _bad("The value must be a non-negative integer.", name)
    if name == "temperature" and not _NUMBER.fullmatch(text):
        raise _bad("The value must be a number.", name)
    return text


def _bad(message: str, param: str | None = None) -> GatewayError:
    prefix = f"`{param}`: " if param else ""
    return GatewayError("bad_request", prefix + message, param=param)
