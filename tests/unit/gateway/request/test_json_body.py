"""Bytes to one JSON object: what two parsers could read differently is refused, what is broken is told or mended."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.json_body import MAX_DEPTH, read_json


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"  ",
            b"[]",
            b"null",
            b'"text"',
            b"{",
            b'{"a": NaN}',
            b'{"a": 1} trailing',
            b"{'a': 1}",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf" * 20_000 + b"{}",
        ),
        *(
            b"[" * 5000 + b"]" * 5000,
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
            b'{"a": 1e999}',
            b'{"a": 01}',
            b'{"a": "\n"}',
        ),
    ],
)
def test_what_is_no_json_object_is_400(data: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        read_json(data)
    assert (caught.value.status, caught.value.code) == (400, "bad_request")
    assert len(caught.value.message) < 200


def test_a_byte_order_mark_is_dropped() -> None:
    assert read_json(b'\xef\xbb\xbf{"a":1}') == ({"a": 1}, b'{"a":1}')
    assert read_json(b'\xef\xbb\xbf{"a":"\\ud800"}') == ({"a": "\ufffd"}, b'{"a":"\\ufffd"}')


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (r'{"a":"\ud800"}', "\ufffd"),
        (r'{"a":"x\uDC00y"}', "x\ufffdy"),
        (r'{"a":"\ud83d\ude00"}', "\U0001f600"),
        (r'{"a":"\ud83d\ud83d\ude00"}', "\ufffd\U0001f600"),
        (r'{"a":"\\ud800"}', "\\ud800"),
        (r'{"a":"\ud800\\udc00"}', "\ufffd\\udc00"),
        (r'{"a":"\ud800\n"}', "\ufffd\n"),
    ],
)
def test_half_a_surrogate_pair_becomes_the_replacement_character(sent: str, meant: str) -> None:
    value, data = read_json(sent.encode())
    assert value == {"a": meant}
    assert json.loads(data) == value  # what the engine reads is what was checked


@pytest.mark.parametrize(
    ("data", "position", "path"),
    [
        (b'{"a": "\xff"}', 7, "a"),
        (b'{"messages": [{"content": "ok"}, {"content": "\xc3("}]}', 46, "messages[1].content"),
        (b'{"\xff": 1}', 2, None),
        (b"\xff\xfe{}", 0, None),
        (b'{"a": "\xed\xa0\x80"}', 7, "a"),
    ],
)
def test_what_is_not_utf_8_is_told_with_its_place(data: bytes, position: int, path: str | None) -> None:
    with pytest.raises(GatewayError) as caught:
        read_json(data)
    assert f"byte {position}" in caught.value.message
    assert caught.value.param == path


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"stream": true, "stream": false}', "stream"),
        (b'{"a": {"b": 1, "b": 2}}', "b"),
        (b'{"a": [{"b": 1}, {"b": 2, "c": 3, "b" \t:4}]}', "b"),
        (rb'{"n": 1, "\u006e": 2}', "n"),
        (rb'{"x": "\":", "n" : 1, "n": 2}', "n"),
        (b'{"n":1,"n"\n:2,"x":"a\\":b"}', "n"),
        (rb'{"\ud800": 1, "\udc00": 2}', "\ufffd"),
    ],
)
def test_a_name_that_occurs_twice_is_refused(data: bytes, name: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read_json(data)
    assert caught.value.param == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text(), JSON, max_size=5), separators=st.sampled_from([(",", ":"), (" ,\n", " :\t")]))
def test_no_proper_object_is_taken_for_one_with_a_repeated_name(
    value: dict[str, object], separators: tuple[str, str]
) -> None:
    data = json.dumps(value, separators=separators, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    assert read_json(data) == (value, data)


def test_depth() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert read_json(nested(MAX_DEPTH))
    with pytest.raises(GatewayError, match="nested deeper"):
        read_json(nested(MAX_DEPTH + 1))


def test_many_objects_are_refused_before_they_are_made() -> None:
    """3.3 million of them took the event loop 2.5 s."""
    data = b'{"a":[' + b"{}," * 3_300_000 + b"{}]}"
    began = time.process_time()
    with pytest.raises(GatewayError, match="more than 200000"):
        read_json(data)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("end", [b"", b"\\"], ids=["", "with a backslash"])
def test_a_text_that_never_ends_is_read_once(end: bytes) -> None:
    """To look for its end from each of its quotes took 0.5 s for 8,000 of them, and hours for these."""
    data = b"[" * 200_001 + b'"' + b'\\"' * 4_000_000 + end
    with pytest.raises(GatewayError, match="more than 200000"):
        read_json(data)  # that it ends is the test


def test_brackets_in_a_text_are_no_lists() -> None:
    data = orjson.dumps({"a": "[{" * 200_000})
    assert read_json(data)[1] is data


@pytest.mark.parametrize("inner", [b'"k%06d":1', b'"k%06d" :{}'])
def test_many_names_are_refused(inner: bytes) -> None:
    data = b"{" + b",".join(inner % number for number in range(250_000)) + b"}"
    with pytest.raises(GatewayError, match="more than 200000"):
        read_json(data)


def test_a_large_body_is_checked_for_repeated_names_too() -> None:
    texts = ["a: b", 'c\\": "d'] * 20_000
    proper = json.dumps({"a": texts, "b": texts}).encode()
    assert read_json(proper) == ({"a": texts, "b": texts}, proper)
    with pytest.raises(GatewayError) as caught:
        read_json(proper[:-1] + b', "b" : 1}')
    assert caught.value.param == "b"
