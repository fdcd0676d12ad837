"""Headers -> what the body is."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from llama_gguf.models.download.range_response import (
    ErrorResponse,
    FullContent,
    InvalidRange,
    PartialContent,
    RangeNotSatisfiable,
    RangeResponse,
    read_response,
)


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        (200, {"Content-Length": "7", "ETag": '"a"'}, FullContent(7, '"a"')),
        (200, {"content-length": "-7", "Last-Modified": "x"}, FullContent(None, "x")),
        (200, {"ETag": 'W/"a"'}, FullContent(None, "")),
        (206, {"Content-Range": "bytes 2-4/9", "ETag": '"a"', "Last-Modified": "x"}, PartialContent(2, 5, 9, '"a"')),
        (206, {"Content-Range": "bytes 2-4/*"}, InvalidRange()),
        (206, {"Content-Range": "bytes 4-2/9"}, InvalidRange()),
        (206, {"Content-Range": "bytes 2-9/9"}, InvalidRange()),
        (206, {"Content-Range": "bytes */9"}, InvalidRange()),
        (206, {"Content-Type": "multipart/byteranges; boundary=x"}, InvalidRange()),
        (416, {"Content-Range": "bytes */9"}, RangeNotSatisfiable(9)),
        (416, {}, RangeNotSatisfiable(None)),
        (503, {"Retry-After": "12"}, ErrorResponse(503, 12.0)),
        (429, {"Retry-After": "Sun, 22 Nov 2020 20:00:00 GMT"}, ErrorResponse(429, 0.0)),
        (204, {}, ErrorResponse(204, None)),
    ],
)
def test_answers(status: int, headers: dict[str, str], answer: RangeResponse) -> None:
    assert read_response(status, CIMultiDict(headers)) == answer
