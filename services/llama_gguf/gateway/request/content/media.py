"""Images, audio and video in typed content parts: from where they may come, and whether they can be decoded. Pure.

Only a part whose type is one of the engine's media types is media; a tool's argument or a schema's property that is
called `image_url` is not. The engine fetches what begins with http, reads what begins with file:// where it is allowed
to, and decodes the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.refusal import kind, refusal

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_DATA_URL = re.compile(r"data:(?:image|audio|video)/[^,]{1,200}base64,", re.IGNORECASE)
_HEAD_CHARACTERS = 256

OPENAI_TYPES = ("image_url", "input_audio", "input_video", "video_url")  # a set cannot look up a list


@dataclass(frozen=True, slots=True)
class MediaRules:
    """`supported`: a projector is configured, so the model takes images or audio, or both."""

    supported: bool
    allow_remote: bool
    max_items: int


class MediaCheck:
    """Checks the media of one request, and counts them."""

    __slots__ = ("_rules", "_seen")

    def __init__(self, rules: MediaRules) -> None:
        self._rules = rules
        self._seen = 0

    def openai_part(self, part: dict[str, Any], path: str) -> None:
        """Check a part whose type is one of OPENAI_TYPES. Raises GatewayError."""
        name = part["type"]
        value = part.get(name)
        if not isinstance(value, dict):
            raise refusal(f"{path}.{name}", f"must be an object, not {kind(value)}.")
        # Both are checked: which of them the engine reads depends on the type.
        given = {field: value[field] for field in ("url", "data") if value.get(field) is not None}
        if not given:
            raise refusal(f"{path}.{name}", "needs `data`." if name == "input_audio" else "needs `url`.")
        for field, source in given.items():
            self._source(source, f"{path}.{name}.{field}")

    def responses_part(self, part: dict[str, Any], path: str) -> None:
        """Check a part of the type input_image. Raises GatewayError."""
        url = part.get("image_url")
        if url is None:
            raise refusal(f"{path}.image_url", "is missing; images by file id are not supported.")
        self._source(url, f"{path}.image_url")

    def anthropic_block(self, block: dict[str, Any], path: str) -> None:
        """Check a block of the type image. Raises GatewayError."""
        source = block.get("source")
        if not isinstance(source, dict):
            raise refusal(f"{path}.source", f"must be an object, not {kind(source)}.")
        form = source.get("type")
        if form == "base64":
            media_type = source.get("media_type", "image/jpeg")
            if not isinstance(media_type, str) or not re.fullmatch(r"image/[\w.+-]{1,60}", media_type):
                raise refusal(f"{path}.source.media_type", "must be a type of image, as image/png.")
            data = source.get("data")
            if not isinstance(data, str):
                raise refusal(f"{path}.source.data", f"must be a string, not {kind(data)}.")
            self._count(path)
            _check_base64(data, 0, f"{path}.source.data")
        elif form == "url":
            self._source(source.get("url"), f"{path}.source.url")
        else:
            raise refusal(f"{path}.source.type", "must be base64 or url.")

    def base64_item(self, value: object, path: str) -> None:
        """Check an element of the engine's own `multimodal_data`. Raises GatewayError."""
        if not isinstance(value, str):
            raise refusal(path, f"must be a string, not {kind(value)}.")
        self._count(path)
        _check_base64(value, 0, path)

    def _source(self, source: object, path: str) -> None:
        """Check one URL or base64 text. Ignores case and blanks in front, so it errs on the side of refusing."""
        if not isinstance(source, str):
            raise refusal(path, f"must be a string, not {kind(source)}.")
        start = source[:_HEAD_CHARACTERS].lstrip().lower()
        if start.startswith("file:"):
            raise GatewayError("media_not_allowed", "Media URLs must not point to files of the server.", param=path)
        if start.startswith("http"):
            if not self._rules.allow_remote:
                raise GatewayError(
                    "media_not_allowed",
                    "Remote media URLs are disabled; send the media inline as a base64 data: URL.",
                    param=path,
                )
            self._count(path)
            return
        self._count(path)
        if start.startswith("data:"):
            head = _DATA_URL.match(source)
            if head is None:
                raise refusal(path, "must be like data:image/png;base64,... (image, audio or video).")
            _check_base64(source, head.end(), path)
        else:
            _check_base64(source, 0, path)

    def _count(self, path: str) -> None:
        self._seen += 1
        if not self._rules.supported:
            raise refusal(path, "is media, and the model of this server takes text only.")
        if self._seen > self._rules.max_items:
            raise refusal(path, f"is one too many: a request may have {self._rules.max_items} images and clips.")


def _check_base64(text: str, start: int, path: str) -> None:
    if _BASE64.fullmatch(text, start) is None or (len(text) - start) % 4 == 1:
        raise refusal(path, "is not valid base64.")
