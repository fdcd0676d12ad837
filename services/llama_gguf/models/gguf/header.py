"""Reads the header of a GGUF file: metadata and tensor table, without the weights and without numpy.

Files are untrusted, so every count and length is checked against a limit before it is used. Long arrays (a vocabulary)
are skipped. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.tensor_types import GGML_TYPES
from llama_gguf.settings.gguf_file import MAGIC

_VERSIONS = (2, 3)
_MAX_PAIRS = 65_536
_MAX_TENSORS = 1_048_576
_MAX_KEY_BYTES = 65_535
_MAX_STRING_BYTES = 16 * 1024 * 1024  # the longest strings are chat templates: about 100 KB
_MAX_SKIPPED_STRINGS = 16_000_000  # of all arrays together; the largest vocabularies have a million
_MAX_ARRAY_LENGTH = 4096  # longer arrays are skipped: per-layer values are needed, vocabularies are not
_MAX_DIMENSIONS = 4
_MAX_TENSOR_BYTES = 1 << 50
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_SCALARS = {
    number: struct.Struct("<" + code) for number, code in zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class SkippedArray:
    """An array that was skipped."""

    count: int


Value = int | float | bool | str | tuple[int | float | bool, ...] | SkippedArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the tensor table; `offset` is relative to the start of the data."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int

    @property
    def elements(self) -> int:
        """Number of values."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def type_name(self) -> str:
        """Name of the type, or its number for one that is newer than the table."""
        kind = GGML_TYPES.get(self.type_number)
        return kind.name if kind else f"type {self.type_number}"

    @property
    def byte_size(self) -> int:
        """Bytes of data; 0 for an unknown type."""
        kind = GGML_TYPES.get(self.type_number)
        return kind.bytes_of(self.elements) if kind else 0


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file."""

    path: Path
    file_bytes: int
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model family, "" if it is missing."""
        return self.text("general.architecture")

    @cached_property
    def end_of_data(self) -> int:
        """Minimum size of the file: where the data of the last tensor ends."""
        return self.data_offset + max((tensor.offset + tensor.byte_size for tensor in self.tensors), default=0)

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """The tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    def text(self, key: str, default: str = "") -> str:
        """Return a string value, `default` if it is missing or not a string."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else default

    def number(self, key: str, default: int = 0) -> int:
        """Return an integer (of a per-layer array, the largest), `default` if it is missing or not an integer.

        Never fails, and checks no range: what memory is counted with is read through `Hyperparameters`.
        """
        value = self.metadata.get(key)
        if isinstance(value, tuple):
            return max((int(item) for item in value if isinstance(item, int)), default=default)
        return int(value) if isinstance(value, int) else default


def read_header(path: Path) -> Header:
    """Read the header of `path`. Raises a permanent ModelError if it is not a valid GGUF file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is not a regular file", code="model_not_a_file")
        if status.st_size < len(MAGIC) + 20:
            raise _invalid(path, f"it has only {status.st_size} bytes")
        # Private, because some network and user-space file systems map nothing shared.
        with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as view:
            return _Reader(path, view).header()
    finally:
        os.close(descriptor)


def _invalid(path: Path, what: str, code: str = "model_not_gguf") -> ModelError:
    return ModelError(
        f"{path} is not a valid GGUF file: {what}", code=code, hint="download it again and compare the sizes"
    )


class _Reader:
    """A parser of the header in a memory-mapped file."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path = path
        self._view = view
        self._size = len(view)
        self._position = 0
        self._skipped_strings = 0

    def header(self) -> Header:
        """Read everything up to the tensor data."""
        if (magic := self._bytes(4)) != MAGIC:
            what = "it is an HTML page" if magic.lstrip()[:1] == b"<" else f"it starts with {magic!r}, not {MAGIC!r}"
            raise _invalid(self._path, what)
        version = self._u32()
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "it is big-endian" if swapped in _VERSIONS else f"it has version {version} of the format"
            raise _invalid(self._path, f"{what}; llama.cpp reads versions 2 and 3, little-endian", "model_unsupported")
        tensor_count = self._count("tensors", _MAX_TENSORS)
        pair_count = self._count("metadata pairs", _MAX_PAIRS)
        metadata: dict[str, Value] = {}
        for _ in range(pair_count):
            key = self._text("key", _MAX_KEY_BYTES)
            if key in metadata:
                raise _invalid(self._path, f"the key {key!r} occurs twice")
            metadata[key] = self._value(self._u32())
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise _invalid(self._path, f"general.alignment is {alignment!r}")
        tensors = self._tensors(tensor_count, alignment)
        data_offset = -(-self._position // alignment) * alignment
        return Header(self._path, self._size, version, metadata, tensors, data_offset)

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        tensors: dict[str, Tensor] = {}
        for _ in range(count):
            name = self._text("tensor name", _MAX_KEY_BYTES)
            dimensions = self._u32()
            if dimensions > _MAX_DIMENSIONS:
                raise _invalid(self._path, f"the tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self._u64() for _ in range(dimensions))
            tensor = Tensor(name, shape, self._u32(), self._u64())
            if name in tensors:
                raise _invalid(self._path, f"the tensor {name!r} occurs twice")
            if tensor.elements > _MAX_TENSOR_BYTES or tensor.offset > _MAX_TENSOR_BYTES or tensor.offset % alignment:
                raise _invalid(self._path, f"the tensor {name!r} has an invalid size or offset")
            tensors[name] = tensor
        return tuple(tensors.values())

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._text("string", _MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array(self._u32(), self._u64())
        if (scalar := _SCALARS.get(kind)) is None:
            raise _invalid(self._path, f"a value has the unknown type {kind}")
        value: int | float | bool = scalar.unpack(self._bytes(scalar.size))[0]
        return value

    def _array(self, kind: int, count: int) -> Value:
        if kind == _STRING:
            self._skip_strings(count)
            return SkippedArray(count)
        if (scalar := _SCALARS.get(kind)) is None:
            raise _invalid(self._path, f"an array has the unsupported type {kind}")
        if count > (self._size - self._position) // scalar.size:
            raise self._truncated()
        if count > _MAX_ARRAY_LENGTH:
            self._position += count * scalar.size
            return SkippedArray(count)
        return tuple(item[0] for item in scalar.iter_unpack(self._bytes(count * scalar.size)))

    def _skip_strings(self, count: int) -> None:
        self._skipped_strings += count
        if self._skipped_strings > _MAX_SKIPPED_STRINGS:
            raise _invalid(self._path, f"its arrays have more than {_MAX_SKIPPED_STRINGS} strings")
        position, view, unpack, last = self._position, self._view, _U64.unpack_from, self._size - 8
        for _ in range(count):
            if position > last:
                raise self._truncated()
            position += 8 + unpack(view, position)[0]
        self._position = position
        if position > self._size:
            raise self._truncated()

    def _text(self, what: str, limit: int) -> str:
        length = self._u64()
        if length > limit:
            raise _invalid(self._path, f"a {what} has {length} bytes")
        return self._bytes(length).decode("utf-8", errors="replace")

    def _count(self, what: str, limit: int) -> int:
        count = self._u64()
        if count > limit:
            raise _invalid(self._path, f"it has {count} {what}")
        return count

    def _u32(self) -> int:
        return int(_U32.unpack(self._bytes(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._bytes(8))[0])

    def _bytes(self, count: int) -> bytes:
        end = self._position + count
        if end > self._size:
            raise self._truncated()
        data = self._view[self._position : end]
        self._position = end
        return data

    def _truncated(self) -> ModelError:
        return _invalid(self._path, f"its header is truncated at {self._size} bytes", "model_incomplete")
