"""Words in configuration text: booleans, and the most similar one of several. Pure."""

from __future__ import annotations

from collections.abc import Iterable

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})
"""Boolean values of a variable, in lower case; huggingface_hub accepts the same."""


def closest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that is most similar to `word`, if one is."""
    import difflib  # noqa: PLC0415 - most programs never need it

    by_fold = {option.lower(): option for option in options}
    match = difflib.get_close_matches(word.lower(), by_fold, n=1, cutoff=0.7)
    return by_fold[match[0]] if match else None
