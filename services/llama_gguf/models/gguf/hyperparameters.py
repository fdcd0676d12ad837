"""One model's hyperparameters, read from its header and checked: types, signs and ranges.

Files are untrusted, and llama-server aborts on what is out of range. The bounds are llama.cpp's where it has them
(llama-hparams.h), else far beyond every model that exists, so that sizes computed from them stay meaningful.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.header import Header, SkippedArray, Value

MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_WIDTH = 1 << 20
MAX_HEADS = 1 << 14
MAX_COUNT = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The values under the architecture's own prefix; what is missing is the default, what is wrong a ModelError."""

    header: Header

    def number(self, key: str, default: int = 0, *, most: int = MAX_COUNT, least: int = 0) -> int:
        """Return one whole number; of an array, the largest."""
        value = self.header.metadata.get(self._name(key))
        if value is None:
            return default
        if isinstance(value, tuple):
            return max((self._checked(key, item, least, most) for item in value), default=default)
        return self._checked(key, value, least, most)

    def first(self, key: str, *, most: int = MAX_COUNT) -> int:
        """Return one whole number; of an array, the first, as llama.cpp where it wants one for all layers."""
        value = self.header.metadata.get(self._name(key))
        if isinstance(value, tuple):
            return self._checked(key, value[0], 0, most) if value else 0
        return self.number(key, most=most)

    def required(self, key: str, *, most: int = MAX_COUNT) -> int:
        """Return a whole number of at least 1 that llama-server does not load a model without."""
        value = self.header.metadata.get(self._name(key))
        if value is None:
            raise self.missing(key)
        return self._checked(key, value, 1, most)

    def per_layer(self, key: str, layers: int, default: int = 0, *, most: int = MAX_COUNT) -> tuple[int, ...]:
        """Return one whole number per layer, from a single number or an array of exactly as many."""
        value = self.header.metadata.get(self._name(key))
        if value is None:
            return (default,) * layers
        if not isinstance(value, tuple):
            return (self._checked(key, value, 0, most),) * layers
        if len(value) != layers:
            raise self._wrong(f"{self._name(key)} has {len(value)} values for {layers} layers")
        return tuple(self._checked(key, item, 0, most) for item in value)

    def flags(self, key: str, layers: int) -> tuple[bool, ...] | None:
        """Return an array of yes and no, one per layer (llama.cpp: no for those it leaves out); None if missing."""
        value = self.header.metadata.get(self._name(key))
        if isinstance(value, SkippedArray) or (isinstance(value, tuple) and len(value) > MAX_LAYERS):
            count = value.count if isinstance(value, SkippedArray) else len(value)
            raise self._wrong(f"{self._name(key)} has {count} values, more than {MAX_LAYERS} layers")
        if not isinstance(value, tuple):
            return None
        found = [self._checked(key, int(item) if isinstance(item, bool) else item, 0, MAX_COUNT) for item in value]
        return tuple(item != 0 for item in found[:layers]) + (False,) * (layers - len(found))

    def missing(self, key: str) -> ModelError:
        """Return the error for a value that llama-server does not do without."""
        return self._wrong(f"it has no {self._name(key)}")

    def unfit(self, key: str, value: int, expected: str) -> ModelError:
        """Return the error for a value that contradicts another one."""
        return self._wrong(f"{self._name(key)} is {value}, expected {expected}")

    def _name(self, key: str) -> str:
        return f"{self.header.architecture}.{key}"

    def _checked(self, key: str, value: Value, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(f"{self._name(key)} is {_shown(value)}, expected a whole number")
        if not least <= value <= most:
            raise self._wrong(f"{self._name(key)} is {value}, expected {least} to {most}")
        return value

    def _wrong(self, what: str) -> ModelError:
        return ModelError(
            f"{self.header.path} is not a model that llama-server loads: {what}",
            code="model_unsupported",
            hint="download it again and compare the sizes, or use another conversion of the model",
        )


def _shown(value: Value) -> str:
    if isinstance(value, SkippedArray | tuple):
        return f"an array of {value.count if isinstance(value, SkippedArray) else len(value)}"
    return repr(value)[:60]
