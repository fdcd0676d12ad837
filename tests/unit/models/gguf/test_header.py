"""Our header reader against gguf's own writer and reader, and against files that lie."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.gguf.header import Header, SkippedArray, read_header


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key.encode()) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", length) for length in shape)
    return string(name.encode()) + dimensions + struct.pack("<IQ", kind, offset)


def header(pairs: list[bytes], tensors: list[bytes], *, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)


def read(tmp_path: Path, data: bytes, padding: int = 0) -> Header:
    path = tmp_path / "x.gguf"
    path.write_bytes(data + b"\0" * padding)
    return read_header(path)


def test_agrees_with_ggufs_reader(tiny_model: Path, tiny_rerank_model: Path) -> None:
    for path in (tiny_model, tiny_rerank_model):
        ours, theirs = read_header(path), gguf.GGUFReader(path)
        assert [(t.name, t.shape, t.type_number, t.byte_size) for t in ours.tensors] == [
            (t.name, tuple(int(length) for length in t.shape), int(t.tensor_type), t.n_bytes) for t in theirs.tensors
        ]
        assert [ours.data_offset + t.offset for t in ours.tensors] == [t.data_offset for t in theirs.tensors]
        known = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
        assert list(ours.metadata) == list(known)
        for name, value in ours.metadata.items():
            if isinstance(value, SkippedArray):
                assert value.count == len(known[name].data)
            else:
                expected = known[name].contents()
                assert (list(value) if isinstance(value, tuple) else value) == expected
        assert ours.end_of_data <= ours.file_bytes == path.stat().st_size


def test_every_kind_of_value(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -5)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -300)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -70000)
    writer.add_float32("f32", 0.5)
    writer.add_uint64("u64", 1 << 60)
    writer.add_int64("i64", -(1 << 50))
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "naïve ✓")
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("flags", [True, False])
    writer.add_array("words", ["a", "b"])
    writer.add_array("long", list(range(5000)))
    writer.add_tensor("t", np.ones((3, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_header(tmp_path / "x.gguf")
    values = dict(found.metadata)
    assert values.pop("f32") == 0.5
    assert values == {
        "general.architecture": "llama",
        "u8": 200,
        "i8": -5,
        "u16": 60000,
        "i16": -300,
        "u32": 4_000_000_000,
        "i32": -70000,
        "u64": 1 << 60,
        "i64": -(1 << 50),
        "f64": 0.1,
        "yes": True,
        "text": "naïve ✓",
        "numbers": (1, 2, 3),
        "flags": (True, False),
        "words": SkippedArray(2),
        "long": SkippedArray(5000),
    }
    assert found.architecture == "llama"
    assert found.number("numbers") == 3
    assert found.number("text", 7) == 7
    assert found.text("u8", "none") == "none"
    assert found.by_name["t"].shape == (32, 3)
    assert found.by_name["t"].type_name == "f16"


def test_the_vocabulary_of_the_starter_model_is_stepped_over(starter_model: Path) -> None:
    found = read_header(starter_model)
    tokens = found.metadata["tokenizer.ggml.tokens"]
    assert tokens == SkippedArray(49152)
    assert found.end_of_data == found.file_bytes


GOOD = [pair("general.architecture", 8, string(b"llama"))]


@pytest.mark.parametrize(
    ("data", "message", "code"),
    [
        (b"", "it has only 0 bytes", "model_not_gguf"),
        (b"GGUF", "it has only 4 bytes", "model_not_gguf"),
        (b"<html><head><title>404</title>", "it is an HTML page", "model_not_gguf"),
        (b"version https://git-lfs.github.com/spec/v1", "it starts with b'vers'", "model_not_gguf"),
        (header(GOOD, [], version=1), "version 1 of the format", "model_unsupported"),
        (header(GOOD, [], version=4), "version 4 of the format", "model_unsupported"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + b"\0" * 8, "big-endian", "model_unsupported"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0) + b"\0" * 8, f"{1 << 40} tensors", "model_not_gguf"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40) + b"\0" * 8, f"{1 << 40} metadata pairs", "model_not_gguf"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), f"a key has {1 << 62} bytes", "model_not_gguf"),
        (header([GOOD[0][:-1]], []), "its header is truncated", "model_incomplete"),
        (header(GOOD * 2, []), "occurs twice", "model_not_gguf"),
        (header([pair("k", 77, b"\0" * 8)], []), "unknown type 77", "model_not_gguf"),
        (header([pair("k", 9, struct.pack("<IQ", 9, 1))], []), "unsupported type 9", "model_not_gguf"),
        (header([pair("k", 9, struct.pack("<IQ", 4, 1 << 61))], []), "truncated", "model_incomplete"),
        (header([pair("k", 9, struct.pack("<IQ", 8, 1 << 61))], []), "arrays have more than", "model_not_gguf"),
        (header([pair("k", 9, struct.pack("<IQ", 8, 3) + string(b"a"))], []), "truncated", "model_incomplete"),
        (header([pair("k", 9, struct.pack("<IQQ", 8, 1, 1 << 62))], []), "truncated", "model_incomplete"),
        (header([pair("k", 8, struct.pack("<Q", 1 << 33))], []), "a string has", "model_not_gguf"),
        (header([pair("general.alignment", 4, struct.pack("<I", 0))], []), "general.alignment is 0", "model_not_gguf"),
        (header([pair("general.alignment", 4, struct.pack("<I", 48))], []), "alignment is 48", "model_not_gguf"),
        (header([pair("general.alignment", 8, string(b"x"))], []), "alignment is 'x'", "model_not_gguf"),
        (header([], [tensor("t", (1,) * 5)]), "has 5 dimensions", "model_not_gguf"),
        (header([], [tensor("t", (1 << 40, 1 << 40))]), "invalid size", "model_not_gguf"),
        (header([], [tensor("t", (4,), offset=1 << 60)]), "invalid size", "model_not_gguf"),
        (header([], [tensor("t", (4,), offset=7)]), "invalid size", "model_not_gguf"),
        (header([], [tensor("t", (4,)), tensor("t", (4,))]), "occurs twice", "model_not_gguf"),
    ],
)  # fmt: skip
def test_files_that_are_no_models(tmp_path: Path, data: bytes, message: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, data)
    assert message in caught.value.message
    assert caught.value.code == code
    assert caught.value.exit_code == ExitCode.CONFIG


def test_tensors_of_the_future_do_not_stop_us(tmp_path: Path) -> None:
    found = read(tmp_path, header(GOOD, [tensor("t", (32, 2), kind=99)]), padding=100)
    assert (found.tensors[0].type_name, found.tensors[0].byte_size) == ("type 99", 0)


def test_a_model_without_tensors(tmp_path: Path) -> None:
    found = read(tmp_path, header(GOOD, []), padding=40)
    assert found.end_of_data == found.data_offset


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelError, match="not a regular file"):
            read_header(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_an_answer_or_a_model_error(data: Any, tiny_model: Path, tmp_path: Path) -> None:
    body = bytearray(tiny_model.read_bytes()[:12_000])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(body[: data.draw(st.integers(24, len(body)))])
    try:
        found = read_header(path)
    except ModelError:
        return
    assert found.end_of_data >= 0
