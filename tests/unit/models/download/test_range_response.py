"""Headers -> what the body is."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from llama_gguf.models.download.range_response import Answer, Beyond, Piece, Refusal, Unusable, Whole, read_answer


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        (200, {"Content-Length": "7", "ETag": '"a"'}, Whole(7, '"a"')),
        (200, {"content-length": "-7", "Last-Modified": "x"}, Whole(None, "x")),
        (200, {"ETag": 'W/"a"'}, Whole(None, "")),
        (206, {"Content-Range": "bytes 2-4/9", "ETag": '"a"', "Last-Modified": "x"}, Piece(2, 5, 9, '"a"')),
        (206, {"Content-Range": "bytes 2-4/*"}, Unusable()),
        (206, {"Content-Range": "bytes 4-2/9"}, Unusable()),
        (206, {"Content-Range": "bytes 2-9/9"}, Unusable()),
        (206, {"Content-Range": "bytes */9"}, Unusable()),
        (206, {"Content-Type": "multipart/byteranges; boundary=x"}, Unusable()),
        (416, {"Content-Range": "bytes */9"}, Beyond(9)),
        (416, {}, Beyond(None)),
        (503, {"Retry-After": "12"}, Refusal(503, 12.0)),
        (429, {"Retry-After": "Sun, 22 Nov 2026 20:00:00 GMT"}, Refusal(429, None)),
        (204, {}, Refusal(204, None)),
    ],
)
def test_answers(status: int, headers: dict[str, str], answer: Answer) -> None:
    assert read_answer(status, CIMultiDict(headers)) == answer
