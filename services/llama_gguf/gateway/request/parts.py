"""A request with many prompts, inputs or documents, in parts, and their responses as one. Pure.

llama-server queues all of them at once, first come first served, so that everybody else's next request waits for all.
Sent a few at a time, each part takes its turn in the fair queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llama_gguf.gateway.request.refusal import refusal

_LISTS = {"completions": ("prompt",), "embeddings": ("input", "content"), "rerank": ("documents", "texts")}


def split_parts(group: str, fields: Mapping[str, Any], size: int) -> list[bytes]:
    """Return the bodies of the parts of a request, each with at most `size` entries of its list.

    Raises GatewayError 400 for a stream: its events name the entry by a number that another part would repeat.
    """
    name = next(name for name in _LISTS[group] if name in fields)
    entries = fields[name]
    if fields.get("stream"):
        raise refusal(name, f"must not have more than {size} entries where `stream` is true.")
    rest = {key: value for key, value in fields.items() if key not in (name, "top_n")}
    return [orjson.dumps({**rest, name: entries[start : start + size]}) for start in range(0, len(entries), size)]


def join_parts(group: str, fields: Mapping[str, Any], bodies: Sequence[bytes], size: int) -> bytes:
    """Return the response that the engine would have given to the whole request."""
    responses = [orjson.loads(body) for body in bodies]
    name = {"embeddings": "data", "rerank": "results", "completions": "choices"}[group]
    per_entry = fields.get("n") or fields.get("n_cmpl") or 1 if group == "completions" else 1
    joined: list[Any] = []
    for number, response in enumerate(responses):
        entries = response.get(name, [response]) if isinstance(response, dict) else response
        for entry in entries:
            if isinstance(entry.get("index"), int):
                entry["index"] += number * size * per_entry
        joined += entries
    if group == "rerank":
        joined.sort(key=lambda entry: entry.get("relevance_score", entry.get("score", 0)), reverse=True)
        joined = joined[: fields.get("top_n")]
    first = responses[0]
    if not isinstance(first, dict) or name not in first:  # llama.cpp's own routes: a list, or one object for one entry
        return orjson.dumps(joined)
    whole = {key: value for key, value in first.items() if key != "timings"}  # these are of the first part
    whole[name] = joined
    if "usage" in first:
        whole["usage"] = _sum([response.get("usage", {}) for response in responses])
    return orjson.dumps(whole)


def _sum(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for name, value in counts[0].items():
        values = [count.get(name) for count in counts]
        if isinstance(value, dict):
            total[name] = _sum([inner if isinstance(inner, dict) else {} for inner in values])
        else:
            total[name] = sum(number for number in values if isinstance(number, int | float))
    return total
