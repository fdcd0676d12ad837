"""What servers say about a refusal: shown on one line, bounded, without secrets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from llama_gguf.models.server_message import is_transient, message_of, retry_after_seconds, server_says


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        (" \r\n\t ", ""),
        ("Access to model x is restricted.", ": Access to model x is restricted."),
        ("a\r\nb\x1b[31mc\u202e\u2028d", ": a b?[31mc? d"),
        ("bad token hf_mine for https://u:pw@h/x", ": bad token *** for https://***@h/x"),
        ("expired: https://h/x?X-Amz-Credential=abc&Signature=q", ": expired: https://h/x"),
        ("token=abcdefgh", ": token=***"),
        ("x" * 500, ": " + "x" * 199 + "…"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    assert server_says(text, ["hf_mine"]) == shown


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({"X-Error-Message": "gated", "Content-Type": "application/json"}, b'{"error": "no"}', "gated"),
        ({"Content-Type": "application/json; charset=utf-8"}, b'{"error": "no"}', "no"),
        ({"Content-Type": "application/problem+json"}, b'{"detail": "full"}', "full"),
        ({"Content-Type": "application/json"}, b'{"error": {"message": "deep"}}', "deep"),
        ({"Content-Type": "application/json"}, b"[1]", ""),
        ({"Content-Type": "application/json"}, b'{"error"', ""),
        ({"Content-Type": "application/json"}, b'{"error": 7}', ""),
        ({"Content-Type": "application/xml"}, b"<Error><Message>Request has expired</Message></Error>", None),
        ({"Content-Type": "application/xml"}, b"<Error/>", ""),
        ({"Content-Type": "text/plain"}, b"no such \xff bucket\n", "no such \ufffd bucket"),
        ({"Content-Type": "text/html"}, b"<html>Sign in</html>", ""),
        ({}, b"?", ""),
        ({"Content-Type": "text/plain"}, b"x" * 10_000, "x" * 4096),
    ],
)
def test_where_the_message_is(headers: dict[str, str], body: bytes, message: str | None) -> None:
    assert message_of(CIMultiDict(headers), body) == ("Request has expired" if message is None else message)


def test_which_statuses_are_worth_another_request() -> None:
    worth = [status for status in range(300, 600) if is_transient(status)]
    assert {408, 425, 429, 500, 502, 503, 504, 507, 522, 529} <= set(worth)
    assert not {301, 400, 401, 403, 404, 410, 416, 418, 451, 501, 505, 511} & set(worth)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("12", 12.0),
        (" 0 ", 0.0),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, 999_999_999.0),
        ("\u0662", None),
        ("soon", None),
        ("Sun, 22 Nov 2026 20:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 20:01:00", 60.0),
        ("Sun, 22 Nov 2026 19:00:00 GMT", 0.0),
        ("Sun, 99 Nov 2026 19:00:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value, datetime(2026, 11, 22, 20, 0, tzinfo=UTC)) == seconds
