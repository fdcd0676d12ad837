"""Media: where it may come from, whether it can be decoded, and what only looks like it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.content.media import MediaCheck, MediaRules

from ..conftest import Refused

PNG = "data:image/png;base64,aGk="


def checker(*, supported: bool = True, allow_remote: bool = False, max_items: int = 4) -> MediaCheck:
    return MediaCheck(MediaRules(supported, allow_remote, max_items))


def image(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


REMOTE = [
    "http://169.254.169.254/",
    "https://x/a.png",
    "HTTP://x/a.png",
    " http://x/a.png",
    "\t\nhttp://x",
    "http:x",
    "httpfoo",
]


@pytest.mark.parametrize("url", REMOTE)
def test_media_by_address_is_refused_unless_allowed(url: str) -> None:
    parts = [
        image(url),
        {"type": "input_audio", "input_audio": {"data": url}},
        {"type": "input_audio", "input_audio": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "url": url}},
        {"type": "input_video", "input_video": {"data": url}},
        {"type": "video_url", "video_url": {"url": url}},
    ]
    for part in parts:
        with pytest.raises(GatewayError) as caught:
            checker().openai_part(part, "p")
        assert caught.value.code == "media_not_allowed"
        checker(allow_remote=True).openai_part(part, "p")
    with pytest.raises(GatewayError, match="Remote media"):
        checker().responses_part({"type": "input_image", "image_url": url}, "p")
    with pytest.raises(GatewayError, match="Remote media"):
        checker().anthropic_block({"type": "image", "source": {"type": "url", "url": url}}, "p")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "FILE:///x", " file://x", "file:x"])
@pytest.mark.parametrize("allow", [False, True])
def test_files_of_the_server_are_never_read(url: str, allow: bool) -> None:
    with pytest.raises(GatewayError, match="files of the server"):
        checker(allow_remote=allow).openai_part(image(url), "p")


def test_inline_media_passes() -> None:
    media = checker()
    media.openai_part(image(PNG), "p")
    media.openai_part(image("aGk="), "p")
    media.openai_part({"type": "input_audio", "input_audio": {"data": "aGk", "format": "wav"}}, "p")
    media.base64_item("aGk=", "p")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data:image/png;base64,",
        "data:image/png;base64,a b",
        "data:text/html;base64,aGk=",
        "data:image/png,aGk=",
        "data:image/png;base64,aGk=,x",
        "data:image/png;base64,aGk====",
        "a",
        "aGk=!",
        "aGk=aGk=",
        "../x",
        "\x00",
    ],
)
def test_what_cannot_be_decoded_is_refused(url: str, refused: Refused) -> None:
    assert refused(lambda: checker().openai_part(image(url), "p")) == "p.image_url.url"


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "image_url"}, "p.image_url"),
        ({"type": "image_url", "image_url": PNG}, "p.image_url"),
        ({"type": "image_url", "image_url": {}}, "p.image_url"),
        (image(5), "p.image_url.url"),
        ({"type": "input_audio", "input_audio": {"data": None}}, "p.input_audio"),
    ],
)
def test_malformed_parts(part: dict[str, Any], path: str, refused: Refused) -> None:
    assert refused(lambda: checker().openai_part(part, "p")) == path


@pytest.mark.parametrize("media_type", ["image/png,http://x", "text/html", 5, "image/" + "a" * 5000])
def test_a_type_of_image_cannot_smuggle(media_type: object, refused: Refused) -> None:
    source = {"type": "base64", "media_type": media_type, "data": "aGk="}
    assert refused(lambda: checker().anthropic_block({"type": "image", "source": source}, "p")) == "p.source.media_type"


def test_a_model_for_text_takes_none_and_their_number_is_bounded(refused: Refused) -> None:
    assert refused(lambda: checker(supported=False).openai_part(image(PNG), "p")) == "p.image_url.url"
    media = checker(max_items=2)
    media.openai_part(image(PNG), "p")
    media.base64_item("aGk=", "p")
    assert refused(lambda: media.openai_part(image(PNG), "q")) == "q.image_url.url"


def test_a_large_image_is_checked_in_little_time() -> None:
    began = time.process_time()
    checker().openai_part(image("data:image/png;base64," + "A" * 8_000_000), "p")
    assert time.process_time() - began < 2
