"""What is read of a request's JSON body, and what is not let through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api import request_json


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": 1} trailing',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"{'a': 1}",
        b"[" * 5000 + b"]" * 5000,
    ],
)
def test_what_is_no_json_object_is_400(data: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        request_json.parse(data)
    assert (caught.value.status, caught.value.code) == (400, "bad_request")


def test_of_a_repeated_name_the_last_counts_as_in_the_engine() -> None:
    assert request_json.parse(b'{"stream": true, "stream": false}') == {"stream": False}


def test_model() -> None:
    assert request_json.model_name({}) == ""
    assert request_json.model_name({"model": None}) == ""
    assert request_json.model_name({"model": "m"}) == "m"
    with pytest.raises(GatewayError) as caught:
        request_json.model_name({"model": ["m"]})
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ({}, (1, 1)),
        ({"n": 3}, (3, 1)),
        ({"n": True}, (1, 1)),
        ({"n": "3"}, (1, 1)),
        ({"n_cmpl": 2}, (2, 1)),
        ({"prompt": ["a", "b"]}, (1, 2)),
        ({"prompt": [1, 2, 3]}, (1, 1)),
        ({"prompt": ["a", 2]}, (1, 1)),
        ({"prompt": [[1, 2], [3]], "n": 2}, (2, 2)),
    ],
)
def test_sequences(value: dict[str, Any], counts: tuple[int, int]) -> None:
    assert request_json.sequences(value) == counts


def chat(part: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "see http://x"}, part]}]}


REMOTE = {
    "OpenAI image": chat({"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}),
    "https": chat({"type": "image_url", "image_url": {"url": "https://x/a.png"}}),
    "capitals": chat({"type": "image_url", "image_url": {"url": "HTTP://x/a.png"}}),
    "leading blank": chat({"type": "image_url", "image_url": {"url": " http://x/a.png"}}),
    "escaped": chat({"type": "image_url", "image_url": {"url": "http://x"}}),
    "no slashes": chat({"type": "image_url", "image_url": {"url": "http:x"}}),
    "audio": chat({"type": "input_audio", "input_audio": {"data": "http://x/a.wav"}}),
    "audio by url": chat({"type": "input_audio", "input_audio": {"url": "http://x/a.wav"}}),
    "video": chat({"type": "video_url", "video_url": {"url": "http://x/a.mp4"}}),
    "Anthropic image": chat({"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}),
    "Anthropic tool result": chat(
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://x/a"}}]}
    ),
    "responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/a.png"}]}]},
}
LOCAL = chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})
INLINE = chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}})


def check(value: dict[str, Any], *, allow: bool, escape: bool = False) -> None:
    raw = json.dumps(value).encode()
    if escape:
        raw = raw.replace(b"http", b"\\u0068ttp")
    request_json.check_media(raw, request_json.parse(raw), allow_remote=allow)


@pytest.mark.parametrize("case", REMOTE)
@pytest.mark.parametrize("escape", [False, True])
def test_media_by_address_is_refused_unless_allowed(case: str, escape: bool) -> None:
    with pytest.raises(GatewayError) as caught:
        check(REMOTE[case], allow=False, escape=escape)
    assert (caught.value.status, caught.value.code) == (400, "media_not_allowed")
    check(REMOTE[case], allow=True, escape=escape)


@pytest.mark.parametrize("allow", [False, True])
def test_files_of_the_server_are_never_read(allow: bool) -> None:
    with pytest.raises(GatewayError) as caught:
        check(LOCAL, allow=allow)
    assert caught.value.code == "media_not_allowed"


def test_inline_media_and_addresses_in_text_pass() -> None:
    check(INLINE, allow=False)
    check({"messages": [{"role": "user", "content": "what is http://example.com and file:///x?"}]}, allow=False)
    check({"tools": [{"function": {"parameters": {"properties": {"image_url": {"type": "string"}}}}}]}, allow=False)
    check({"messages": [{"content": [{"image_url": 5}, {"image_url": {"url": None}}]}], "x": "http"}, allow=False)
