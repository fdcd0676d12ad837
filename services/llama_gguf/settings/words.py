"""Words people write: those for yes and no, and the one of several that somebody probably meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})
"""What a variable may say, in lower case; huggingface_hub takes the same."""


def closest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that `word` most resembles, if any does."""
    import difflib  # noqa: PLC0415 - programs that never have to ask would pay for it

    by_fold = {option.lower(): option for option in options}
    match = difflib.get_close_matches(word.lower(), by_fold, n=1, cutoff=0.7)
    return by_fold[match[0]] if match else None
