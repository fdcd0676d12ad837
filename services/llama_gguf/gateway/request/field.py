"""One field of a request's body: its type, its bounds, and who may set it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llama_gguf.gateway.request.refusal import kind, quoted, refusal

FieldClass = Literal["public", "admin", "internal"]
"""Who may set a field: any key with the route's scope, keys with the scope admin, or the gateway and engine only."""

INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """`types`: Python's for JSON's, empty for any; null always counts as left out. `words` names them for messages.

    `low` and `high` bound a number, `max_length` the characters of a text or the entries of a list or object; `choices`
    are the only texts allowed. `inner` is the type of a list's entries.
    """

    words: str
    types: tuple[type, ...] = ()
    low: float | None = None
    high: float | None = None
    max_length: int | None = None
    choices: tuple[str, ...] = ()
    inner: tuple[type, ...] = ()
    access: FieldClass = "public"

    def check(self, name: str, value: object) -> None:
        """Check a value that is not null. Raises GatewayError 400."""
        kind_of = value.__class__
        if self.types and kind_of not in self.types:
            raise refusal(name, f"must be {self.words}, not {kind(value)}.")
        if kind_of is int or kind_of is float:
            self._check_number(name, value)  # type: ignore[arg-type]
        elif self.max_length is not None and kind_of is not bool:
            self._check_length(name, value)  # type: ignore[arg-type]
        if self.choices and value not in self.choices:
            raise refusal(name, f"must be one of {', '.join(self.choices)}, not {quoted(value)}.")

    def _check_number(self, name: str, value: float) -> None:
        if self.low is not None and value < self.low:
            raise refusal(name, f"must not be less than {self.low:g}.")
        if self.high is not None and value > self.high:
            raise refusal(name, f"must not be more than {self.high:g}.")

    def _check_length(self, name: str, value: str | list[object] | dict[str, object]) -> None:
        assert self.max_length is not None  # noqa: S101 - the caller has checked
        if len(value) > self.max_length:
            what = "characters" if isinstance(value, str) else "entries"
            raise refusal(name, f"must not have more than {self.max_length} {what}.")
        if self.inner and isinstance(value, list):
            for index, item in enumerate(value):
                if item.__class__ not in self.inner:
                    raise refusal(f"{name}[{index}]", f"must not be {kind(item)}.")
                if isinstance(item, str) and len(item) > self.max_length:
                    raise refusal(f"{name}[{index}]", f"must not have more than {self.max_length} characters.")


FieldTable = Mapping[str, Field]


def boolean(access: FieldClass = "public") -> Field:
    """Return a field that is true or false."""
    return Field("a boolean", (bool,), access=access)


def integer(low: float = -INT32 - 1, high: float = INT32, *, access: FieldClass = "public") -> Field:
    """Return a field that is a whole number."""
    return Field("a whole number", (int,), low, high, access=access)


def number(low: float = -1e9, high: float = 1e9) -> Field:
    """Return a field that is a number; JSON has no infinite ones."""
    return Field("a number", (int, float), low, high)


def text(max_length: int = 4096, *choices: str, access: FieldClass = "public") -> Field:
    """Return a field that is a text, or one of some."""
    return Field("a string", (str,), max_length=max_length, choices=choices, access=access)


def texts(max_length: int) -> Field:
    """Return a field that is a text or a list of texts."""
    return Field("a string or a list of strings", (str, list), max_length=max_length, inner=(str,))


def listed(max_length: int, *inner: type, access: FieldClass = "public") -> Field:
    """Return a field that is a list."""
    return Field("a list", (list,), max_length=max_length, inner=inner, access=access)


def mapping(max_length: int = 1024, access: FieldClass = "public") -> Field:
    """Return a field that is an object."""
    return Field("an object", (dict,), max_length=max_length, access=access)


def checked_elsewhere() -> Field:
    """Return a field of which all is checked by `meaning`."""
    return Field("anything")


INTERNAL = Field("nothing", access="internal")
