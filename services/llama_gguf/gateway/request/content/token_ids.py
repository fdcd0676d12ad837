"""Token ids in place of text, which the client's tokenizer made and the model's understands otherwise. Pure.

LangChain's OpenAIEmbeddings and others send ids of OpenAI's tokenizer to any server. They are in the range of most
vocabularies, so nothing fails, and every vector is wrong.
"""

from __future__ import annotations

from typing import Any, Literal

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.refusal import refusal

TokenIdRule = Literal["warn", "refuse"]


def check_token_ids(body: dict[str, Any], name: str, rule: TokenIdRule, changes: Changes) -> None:
    """Tell the client, or refuse it, if the texts to embed are given as token ids. Raises GatewayError."""
    value = body.get(name)
    if not isinstance(value, list) or not value:
        return
    first = value[0]
    if not isinstance(first, int) and not (isinstance(first, list) and first and isinstance(first[0], int)):
        return
    if rule == "refuse":
        raise refusal(
            name, "has token ids; this server embeds text only, as ids of another tokenizer mean other words."
        )
    changes.warn(f"`{name}` has token ids, which are right only if they come from this model's own tokenizer")
