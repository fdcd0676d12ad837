"""The operator's rules for requests to a model, a variant of it, or of a key: defaults, bounds, what is left out. Pure.

Applied before the fields are checked, so that what the operator writes is checked like what a client writes. The
client is told which parameters they changed, in a header of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.fields import TABLES

# The names of the maximum length by route group; the first is set where a request has none.
_OUTPUT_NAMES: Mapping[str, Sequence[str]] = {
    "chat": ("max_tokens", "max_completion_tokens", "n_predict"),
    "completions": ("max_tokens", "max_completion_tokens", "n_predict"),
    "responses": ("max_output_tokens", "max_tokens", "max_completion_tokens", "n_predict"),
    "messages": ("max_tokens",),
    "infill": ("n_predict", "max_tokens", "max_completion_tokens"),
}
_REASONING_NAMES = ("thinking_budget_tokens", "reasoning_budget_tokens")
_KEPT = frozenset({"model", "messages", "prompt", "input", "query", "documents", "texts", "content", "stream"})
"""What a request is; without these it is none, or its client could not read the response."""


@dataclass(frozen=True, slots=True)
class ModelRules:
    """The rules of one model, variant or key."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int | None = None
    max_reasoning_tokens: int | None = None
    strip: frozenset[str] = frozenset()
    lora: Sequence[float] | None = None

    @property
    def empty(self) -> bool:
        """Whether these rules change nothing."""
        return self == _NONE


_NONE = ModelRules()


def joined(above: ModelRules, below: ModelRules) -> ModelRules:
    """Return both together: the defaults of `above` win, of the bounds the lower one."""
    return ModelRules(
        {**below.defaults, **above.defaults},
        _lower(above.max_output_tokens, below.max_output_tokens),
        _lower(above.max_reasoning_tokens, below.max_reasoning_tokens),
        above.strip | below.strip,
        above.lora if above.lora is not None else below.lora,
    )


def _lower(left: int | None, right: int | None) -> int | None:
    return min((bound for bound in (left, right) if bound is not None), default=None)


def apply_rules(group: str, content: dict[str, Any], rules: ModelRules, changes: Changes) -> None:
    """Change a body by the rules. Fields of a wrong type are left for the checks that follow."""
    table = TABLES[group]
    for name in rules.strip:
        if name in content and name not in _KEPT:
            del content[name]
            changes.by_rules(name)
    for name, value in rules.defaults.items():
        if name not in table or name in _KEPT:
            continue
        given = content.get(name)
        if given is None:
            content[name] = value
            changes.by_rules(name)
        elif isinstance(value, dict) and isinstance(given, dict) and set(value) - set(given):
            content[name] = {**value, **given}
            changes.by_rules(name)
    if rules.lora is not None and "lora" in table and content.get("lora") is None:
        content["lora"] = [{"id": number, "scale": scale} for number, scale in enumerate(rules.lora)]
        changes.by_rules("lora")
    if rules.max_output_tokens is not None and group in _OUTPUT_NAMES:
        _bound(content, _OUTPUT_NAMES[group], rules.max_output_tokens, changes)
    if rules.max_reasoning_tokens is not None:
        _bound_reasoning(group, content, rules.max_reasoning_tokens, changes)


def _bound(content: dict[str, Any], names: Sequence[str], maximum: int, changes: Changes) -> None:
    given = [name for name in names if content.get(name) is not None]
    for name in given or names[:1]:
        value = content.get(name)
        if value is None or (type(value) is int and not 0 <= value <= maximum):
            content[name] = maximum
            changes.by_rules(name)


def _bound_reasoning(group: str, content: dict[str, Any], maximum: int, changes: Changes) -> None:
    if group == "messages":
        thinking = content.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        if thinking is None or (type(budget) is int and budget > maximum):
            enabled = {"type": "enabled", "budget_tokens": maximum}
            content["thinking"] = enabled if maximum else {"type": "disabled"}
            changes.by_rules("thinking")
    elif "thinking_budget_tokens" in TABLES[group]:
        _bound(content, _REASONING_NAMES, maximum, changes)
