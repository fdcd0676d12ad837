"""The log probabilities of `/v1/completions`: the engine writes them in the shape of a chat's.

OpenAI's clients and evaluation harnesses read the older shape: parallel lists of tokens, values and offsets.
"""

from __future__ import annotations

import math
from typing import Any


class CompletionLogprobs:
    """Translates the answer to one request. Offsets count characters from the start of each choice's text."""

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}  # by choice, of which a request has a bounded number

    def body(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer with each choice's log probabilities in OpenAI's shape."""
        choices = answer.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            logprobs = choice.get("logprobs")
            if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
                choice["logprobs"] = self._legacy(choice.get("index", 0), logprobs["content"])
        return answer

    def events(self, data: dict[str, Any]) -> tuple[dict[str, Any]]:
        """Return the event, translated like a whole answer: its offsets go on from those before."""
        return (self.body(data),)

    def _legacy(self, index: int, content: list[dict[str, Any]]) -> dict[str, Any]:
        offset = self._offsets.get(index, 0)
        offsets = []
        for entry in content:
            offsets.append(offset)
            offset += len(entry["token"])
        self._offsets[index] = offset
        return {
            "tokens": [entry["token"] for entry in content],
            "token_logprobs": [_value(entry) for entry in content],
            "top_logprobs": [
                {top["token"]: _value(top) for top in entry.get("top_logprobs", entry.get("top_probs", ()))}
                for entry in content
            ],
            "text_offset": offsets,
        }


def _value(entry: dict[str, Any]) -> float | None:
    """Return the logarithm; with `post_sampling_probs` the engine writes the probability. None: impossible."""
    if "logprob" in entry:
        value: float | None = entry["logprob"]
        return value
    return math.log(entry["prob"]) if entry.get("prob") else None
