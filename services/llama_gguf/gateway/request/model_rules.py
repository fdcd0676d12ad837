"""The operator's rules for requests to a model, a variant of it, or of a key: defaults, bounds, what is left out. Pure.

Applied before the fields are checked, so that what the operator writes is checked like what a client writes. The
client is told which parameters they changed, in a header of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.fields import ALIASES, CONSTRAINTS, TABLES
from llama_gguf.keys.record import KeyRecord

# The names of the maximum length by route group; the first is set where a request has none.
_OUTPUT_NAMES: Mapping[str, Sequence[str]] = {
    "chat": ("max_tokens", "max_completion_tokens", "n_predict"),
    "completions": ("max_tokens", "max_completion_tokens", "n_predict"),
    "responses": ("max_output_tokens", "max_tokens", "max_completion_tokens", "n_predict"),
    "messages": ("max_tokens",),
    "infill": ("n_predict", "max_tokens", "max_completion_tokens"),
}
_REASONING_NAMES = ("thinking_budget_tokens", "reasoning_budget_tokens")
KEPT = frozenset({"model", "messages", "prompt", "input", "query", "documents", "texts", "content", "stream"})
"""What a request is; without these it is none, or its client could not read the response."""

_SAME = (*ALIASES, (*CONSTRAINTS, "response_format"))
_RIVALS: Mapping[str, frozenset[str]] = {
    name: frozenset(other for names in _SAME if name in names for other in names) - {name}
    for name in {name for names in _SAME for name in names}
}
"""Of parameters that say the same, or exclude each other: the others."""


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


def rules_of_key(key: KeyRecord) -> ModelRules | None:
    """Return the rules of a key, None if it has none."""
    if key.max_output_tokens is None and key.max_reasoning_tokens is None and not key.strip and not key.defaults:
        return None
    return ModelRules(key.defaults or {}, key.max_output_tokens, key.max_reasoning_tokens, frozenset(key.strip))


def joined(above: ModelRules | None, below: ModelRules | None) -> ModelRules | None:
    """Return both together, None where there are none: the defaults of `above` win, of the bounds the lower one."""
    if above is None or below is None:
        return below if above is None else above
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
        if name in content and name not in KEPT:
            del content[name]
            changes.by_rules(name)
    for name, value in rules.defaults.items():
        if name not in table or name in KEPT:
            continue
        given = content.get(name)
        if given is None:
            if any(content.get(other) is not None for other in _RIVALS.get(name, ())):
                continue  # the client has said it in other words, which both together would contradict
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


def apply_to_form(fields: dict[str, str], rules: ModelRules) -> tuple[str, ...]:
    """Change the fields of a form by the rules, and return the names of what changed: an upload has few fields."""
    changed = [name for name in rules.strip if name in fields and name not in KEPT]
    for name in changed:
        del fields[name]
    maximum = rules.max_output_tokens
    if maximum is not None and int(fields.get("max_tokens", maximum + 1)) > maximum:
        fields["max_tokens"] = str(maximum)
        changed.append("max_tokens")
    return tuple(dict.fromkeys(changed))


def _bound(content: dict[str, Any], names: Sequence[str], maximum: int, changes: Changes) -> None:
    given = [name for name in names if content.get(name) is not None]
    for name in given or names[:1]:
        value = content.get(name)
        if value is None or (type(value) is int and not 0 <= value <= maximum):
            content[name] = maximum
            changes.by_rules(name)


def _bound_reasoning(group: str, content: dict[str, Any], maximum: int, changes: Changes) -> None:
    if group == "messages":
        _bound_thinking(content, maximum, changes)
    elif "thinking_budget_tokens" in TABLES[group]:
        _bound(content, _REASONING_NAMES, maximum, changes)


def _bound_thinking(content: dict[str, Any], maximum: int, changes: Changes) -> None:
    """Give a request of Anthropic's API a budget: only `enabled` has one in llama-server, by default 10000 tokens."""
    given = content.get("thinking")
    if given is None:
        given = {}
    elif not isinstance(given, dict):
        return
    budget = 0 if given.get("type") == "disabled" else given.get("budget_tokens")
    if type(budget) is not int or not 0 <= budget <= maximum:
        budget = maximum
    bounded = {**given, "type": "enabled", "budget_tokens": budget}
    if bounded == given:
        return
    content["thinking"] = bounded
    changes.by_rules("thinking")
    options = content.get("chat_template_kwargs")
    if budget == 0 and (options is None or (isinstance(options, dict) and "enable_thinking" not in options)):
        content["chat_template_kwargs"] = {**(options or {}), "enable_thinking": False}
