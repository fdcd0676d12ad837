"""Audio uploads: what the gateway must know of a multipart/form-data body, and the body that the engine gets. Pure.

The engine makes JSON of whatever fields a form holds and takes that for a chat request, and its parser need not agree
with this one. So the fields that are wanted are taken out here, and a new form is made of them and the file, behind a
boundary of our own: what was checked is what the engine sees. The file is searched for the boundary and copied once,
never taken apart.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from llama_gguf.api_errors import GatewayError

MAX_PARTS = 64
MAX_PART_HEAD_BYTES = 4096
MAX_FIELD_BYTES = 65_536

_BOUNDARY = re.compile(
    rb'multipart/form-data\s*;\s*(?:.*;\s*)?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_DISPOSITION = re.compile(rb"content-disposition:\s*form-data\s*;([^\r\n]*)", re.IGNORECASE)
_NAME = re.compile(rb'(?:^|[;\s])name="([^"]*)"')
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_COUNT = re.compile(r"[0-9]{1,9}")
_TEXTS = frozenset({"model", "prompt", "language", "response_format", "stream"})
_TAKEN = _TEXTS | {"temperature", "max_tokens"}


class Form(NamedTuple):
    """The fields that the engine gets, and the file."""

    fields: dict[str, str]
    file: bytes

    @property
    def stream(self) -> bool:
        """Whether the answer is to come as events; the engine takes anything but `true` for no."""
        return self.fields.get("stream") == "true"

    @property
    def max_tokens(self) -> int | None:
        """How long the answer may be, None where that is left open."""
        value = self.fields.get("max_tokens")
        return None if value is None else int(value)

    def encode(self) -> tuple[bytes, bytes]:
        """Return media type and body of the form as the engine gets it."""
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
    """Take a form apart. Fields the engine has no use for are left out. Raises GatewayError 400."""
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise _bad("Send the file as multipart/form-data.")
    boundary = b"--" + (match[1] or match[2])
    if not body.startswith(boundary):
        raise _bad("The form does not begin with its boundary.")
    fields: dict[str, str] = {}
    file: bytes | None = None
    at, separator = len(boundary), b"\r\n" + boundary
    for _ in range(MAX_PARTS):
        if body.startswith(b"--", at):
            break
        name, start = _part_head(body, at)
        end = body.find(separator, start)
        if end < 0:
            raise _bad("The form has no end.")
        if name == "file":
            if file is not None:
                raise _bad("The form must hold one file.", "file")
            file = body[start:end]
        elif name in _TAKEN:
            if name in fields:
                raise _bad("It must be sent once.", name)
            fields[name] = _value(name, body[start:end])
        at = end + len(separator)
    else:
        raise _bad(f"The form has more than {MAX_PARTS} parts.")
    if file is None:
        raise _bad("The form holds no file.", "file")
    return Form(fields, file)


def _part_head(body: bytes, at: int) -> tuple[str, int]:
    """Return the name of the part that begins at `at`, and where its content does."""
    end = body.find(b"\r\n\r\n", at, at + MAX_PART_HEAD_BYTES)
    if end < 0 or not body.startswith(b"\r\n", at):
        raise _bad("A part of the form has no proper head.")
    disposition = _DISPOSITION.search(body, at, end)
    name = _NAME.search(disposition[1]) if disposition is not None else None
    if name is None:
        raise _bad("A part of the form has no name.")
    return name[1].decode("latin-1"), end + 4


def _value(name: str, value: bytes) -> str:
    if len(value) > MAX_FIELD_BYTES:
        raise _bad(f"It is longer than {MAX_FIELD_BYTES} bytes.", name)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _bad("It must be UTF-8.", name) from None
    if name == "max_tokens" and not _COUNT.fullmatch(text):
        raise _bad("It must be a whole number.", name)
    if name == "temperature" and not _NUMBER.fullmatch(text):
        raise _bad("It must be a number.", name)
    return text


def _bad(message: str, param: str | None = None) -> GatewayError:
    place = f"`{param}`: " if param else ""
    return GatewayError("bad_request", place + message, param=param)
