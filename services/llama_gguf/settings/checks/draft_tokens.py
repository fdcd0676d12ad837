"""How many tokens a draft of speculative decoding can have, as set or by llama-server's default. Pure.

The checks of settings and the memory plan need it: the drafts of all slots are verified in one batch, each token of
them with its logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_gguf.settings.sections.engine_parts.auto import given

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

_DRAFT_TOKENS = 3
_NGRAM_TOKENS = {"ngram-simple": 48, "ngram-map-k": 48, "ngram-map-k4v": 48, "ngram-mod": 64, "ngram-cache": 8}
_FIXED = "ngram-cache"


def longest_draft(engine: Engine, *, has_draft: bool) -> int:
    """Return the tokens of the longest draft, 0 without speculative decoding; `has_draft`: there is a draft model."""
    chosen = engine.speculative
    types = chosen.types or (("draft-simple",) if has_draft else ())
    return max((_longest(name, chosen.max_tokens) for name in types), default=0)


def verified_at_once(engine: Engine, *, has_draft: bool) -> int:
    """Return for how many tokens one batch computes logits: the last of each slot, and those of its draft."""
    return given(engine.slots) * (1 + longest_draft(engine, has_draft=has_draft))


def _longest(name: str, most: int | None) -> int:
    default = _NGRAM_TOKENS.get(name, _DRAFT_TOKENS)
    return default if most is None or name == _FIXED else most
