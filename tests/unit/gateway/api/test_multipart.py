"""Audio uploads: what is taken out of a form, what is refused, and the form the engine gets."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import httpx2
import hypothesis.strategies as st
import pytest
from hypothesis import given

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api.multipart import MAX_FIELD_BYTES, MAX_PARTS, Form, read_form

AUDIO = b"RIFF\r\n--\r\n\x00\xff" * 50
TYPE = b"multipart/form-data; boundary=B"


def encoded(fields: dict[str, Any], file: bytes = AUDIO) -> tuple[bytes, bytes]:
    """Return body and media type as the official clients send them."""
    request = httpx2.Request("POST", "http://x", data=fields, files={"file": ("a b.wav", file, "audio/wav")})
    return request.read(), request.headers["content-type"].encode()


def part(name: str, value: str = "x") -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


FILE = part("file")


def parts_of(media_type: bytes, body: bytes) -> dict[str, bytes]:
    """Take a form apart with another parser."""
    head = b"MIME-Version: 1.0\r\nContent-Type: " + media_type + b"\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert isinstance(message, EmailMessage)
    found = {}
    for item in message.iter_parts():
        content = item.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[str(item.get_param("name", header="content-disposition"))] = content
    return found


def test_fields_and_file() -> None:
    fields = {"model": "tiny", "prompt": "\u00e4h", "language": "de", "temperature": "0.5", "max_tokens": "7"}
    form = read_form(*encoded({**fields, "stream": "true", "response_format": "json"}))
    assert form.file == AUDIO
    assert form.fields == {**fields, "stream": "true", "response_format": "json"}
    assert form.stream
    assert form.max_tokens == 7


def test_the_engine_gets_the_known_fields_and_the_file_behind_a_boundary_of_ours() -> None:
    form = read_form(*encoded({"model": "tiny", "n_predict": "9", "grammar": "root ::= x", "stream": "1"}))
    assert not form.stream
    assert form.max_tokens is None
    media_type, body = form.encode()
    assert parts_of(media_type, body) == {"model": b"tiny", "stream": b"1", "file": AUDIO}
    assert form.encode()[0] != media_type
    assert read_form(body, media_type) == form


@given(st.binary(max_size=300), st.text(max_size=50))
def test_any_file_survives(file: bytes, prompt: str) -> None:
    form = read_form(*reversed(Form({"prompt": prompt}, file).encode()))
    assert (form.file, form.fields["prompt"]) == (file, prompt)


DOTNET = (
    b"\r\n--B\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model\r\n\r\ntiny\r\n"
    b"--B\r\nContent-Type: audio/wav\r\n"
    b"Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''%C3%A4.wav\r\n\r\n"
    + AUDIO
    + b"\r\n--B--\r\n"
)


def test_forms_of_dotnet() -> None:
    """MultipartFormDataContent: names without quotes, and in some versions a line end before the first boundary."""
    for body in (DOTNET, DOTNET[2:]):
        form = read_form(body, b'multipart/form-data; boundary="B"')
        assert (form.file, form.fields) == (AUDIO, {"model": "tiny"})


@pytest.mark.parametrize(
    "parameters",
    [
        'name="file"',
        "name=file",
        "NAME = file",
        "name*=utf-8''file",
        "name*=UTF-8'en'%66ile",
        "name=file; name*=utf-8''file",
        'filename="x; name=\\"model\\".wav"; name="file"',
        'filename=a.wav; name="fi\\le"',
        'name="file"; filename="C:\\"',
    ],
)
def test_ways_to_name_a_part(parameters: str) -> None:
    body = f"--B\r\ncontent-disposition:form-data;{parameters}\r\n\r\nx\r\n--B--".encode()
    assert read_form(body, TYPE).file == b"x"


def test_what_surrounds_the_parts_is_ignored() -> None:
    body = b"This is a form.\r\n" + FILE.replace(b"--B\r\n", b"--B \t\r\n") + b"--B--\r\nthe end\r\n" + part("model")
    form = read_form(body, TYPE)
    assert (form.file, form.fields) == (b"x", {})


@pytest.mark.parametrize(
    "media_type", [b'multipart/form-data; boundary="B"', b"Multipart/Form-Data;charset=x;Boundary=B"]
)
def test_ways_to_name_the_boundary(media_type: bytes) -> None:
    assert read_form(FILE + b"--B--", media_type).file == b"x"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"{}", b"application/json"),
        (b"{}", b""),
        (b"x", b"multipart/form-data"),
        (b"preamble" + FILE + b"--B--", TYPE),
        (b"x" * 5000 + b"\r\n" + FILE + b"--B--", TYPE),
        (b'--B\r\nX: content-disposition: form-data; name="file"\r\n\r\nx\r\n--B--', TYPE),
        (b'--B\r\nContent-Disposition: form-data; name="file"; name="model"\r\n\r\nx\r\n--B--', TYPE),
        (b"--B\r\nContent-Disposition: form-data; name=\"file\"; name*=utf-8''model\r\n\r\nx\r\n--B--", TYPE),
        (b'--B\r\nContent-Disposition: form-data; filename="a; name=file"\r\n\r\nx\r\n--B--', TYPE),
        (FILE, TYPE),
        (FILE + part("prompt")[:-2], TYPE),
        (b"--B\r\n\r\nx\r\n--B--", TYPE),
        (b'--B\r\nContent-Disposition: attachment; name="file"\r\n\r\nx\r\n--B--', TYPE),
        (b"--Bx\r\n" + FILE + b"--B--", TYPE),
        (b"--B\r\nX: " + b"y" * 5000 + b"\r\n\r\nx\r\n--B--", TYPE),
        (part("model") + b"--B--", TYPE),
        (FILE + FILE + b"--B--", TYPE),
        (FILE + part("model") + part("model") + b"--B--", TYPE),
        (FILE + part("max_tokens", "many") + b"--B--", TYPE),
        (FILE + part("temperature", "warm") + b"--B--", TYPE),
        (FILE + part("prompt", "x" * (MAX_FIELD_BYTES + 1)) + b"--B--", TYPE),
        (FILE + part("other") * MAX_PARTS + b"--B--", TYPE),
    ],
)
def test_what_is_no_such_form_is_400(body: bytes, media_type: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        read_form(body, media_type)
    assert (caught.value.status, caught.value.code) == (400, "bad_request")


def test_text_must_be_utf8() -> None:
    with pytest.raises(GatewayError, match="UTF-8") as caught:
        read_form(FILE + part("prompt").replace(b"\r\nx", b"\r\n\xff") + b"--B--", TYPE)
    assert caught.value.param == "prompt"
