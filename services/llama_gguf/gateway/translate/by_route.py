"""Which request needs its answer translated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from llama_gguf.gateway.translate.completion_logprobs import CompletionLogprobs
from llama_gguf.gateway.translate.responses import ResponsesTranslation
from llama_gguf.gateway.translate.translation import Translation

TRANSLATED_GROUPS = frozenset({"completions", "responses"})


def find_translation(
    group: str, fields: Mapping[str, Any], model: str, request_id: str, context: int
) -> Translation | None:
    """Return what translates the answer to a request of a route group, or None. `context` 0 is unknown."""
    if group == "responses":
        now = int(time.time())
        return ResponsesTranslation(fields, model=model, request_id=request_id, created_at=now, context=context)
    if group == "completions" and (fields.get("logprobs") or fields.get("n_probs")):
        return CompletionLogprobs()
    return None
