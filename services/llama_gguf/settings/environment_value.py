"""A variable's value without what an env file left around it: quotes, blanks, carriage returns. Pure.

`docker run --env-file` and Kubernetes take the rest of the line as it is, so `HF_TOKEN="hf_x"` sets a value with
quotes, which no server accepts; Compose and shells remove them. Files written on Windows add a carriage return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

QUOTES_HINT = "remove them: docker --env-file and Kubernetes do not, unlike a shell"
_QUOTES = "\"'"


@dataclass(frozen=True, slots=True)
class EnvironmentValue:
    """The value, and what was removed from around it ("" if nothing that deserves a warning)."""

    text: str = field(repr=False)
    removed: str = ""


def clean(raw: str) -> EnvironmentValue:
    """Return `raw` without blanks around it and without one pair of quotes around it.

    Quotes with the same character between them are part of the value, as in `"a" "b"`.
    """
    text = raw.strip()
    quote = text[:1]
    if len(text) >= 2 and quote in _QUOTES and text[-1] == quote and quote not in text[1:-1]:
        return EnvironmentValue(text[1:-1].strip(), "quotes")
    return EnvironmentValue(text, "blanks or line ends" if text and text != raw else "")


def secret(env: Mapping[str, str], name: str) -> str | None:
    """Return the secret in the variable `name`, None if it is unset or blank."""
    return clean(env.get(name, "")).text or None
