"""Reads a request's body: one parse, every field checked, what has to be changed changed, and what the client is told.

What was checked here is what the engine acts on: it gets the client's own bytes if nothing was changed, else the body
written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.field import Field
from llama_gguf.gateway.request.fields import ALIASES, CONSTRAINTS, TABLES
from llama_gguf.gateway.request.json_body import MAX_DEPTH, read_json
from llama_gguf.gateway.request.meaning import MeaningRules, check_meaning
from llama_gguf.gateway.request.model_rules import ModelRules, apply_rules, joined
from llama_gguf.gateway.request.refusal import kind, refusal
from llama_gguf.gateway.request.unsupported import check_unsupported

LARGE_BODY_BYTES = 65_536
"""From this size on a body is read outside of the event loop's thread."""

# Only two of these together can contradict each other.
_RELATED_NAMES = frozenset(name for names in ALIASES for name in names) | {*CONSTRAINTS, "response_format"}


class RequestContent:
    """A body that has been understood. `data`: its bytes for the engine; `choices`: answers to each of `prompts`."""

    __slots__ = ("changed_by_rules", "choices", "data", "fields", "model", "prompts", "warning_lines")

    def __init__(  # noqa: PLR0917 - created in one place, for each request
        self,
        fields: Mapping[str, Any],
        data: bytes,
        model: str,
        warning_lines: str,
        choices: int,
        prompts: int,
        changed_by_rules: str = "",
    ) -> None:
        self.fields = fields
        self.data = data
        self.model = model  # "" if it names none
        self.warning_lines = warning_lines
        self.choices = choices
        self.prompts = prompts
        self.changed_by_rules = changed_by_rules


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What bodies for one model are read by: the meaning of fields, the choices there can be, the operator's rules."""

    meaning: MeaningRules
    max_choices: int
    operator: ModelRules | None = None  # None: they change nothing


class RequestReader:
    """Reads bodies by the rules of the model that they name. Has no state, so that any thread may call it.

    `default`: for bodies that name none, or one that is not known.
    """

    def __init__(
        self, default: ReadingRules, models: Mapping[str, ReadingRules] | None = None, *, max_depth: int = MAX_DEPTH
    ) -> None:
        self._default = default
        self._models = models or {}
        self._max_depth = max_depth

    def read(
        self, group: str, data: bytes, *, admin: bool, key_rules: ModelRules | None = None, unnamed: str = ""
    ) -> RequestContent:
        """Return what a body of a route group means. `admin`: its key has that scope. Raises GatewayError 400.

        `unnamed`: the model of a body that names none, where it is not the default.
        """
        content, data = read_json(data, self._max_depth)
        changes = Changes()
        model = content.get("model", "")
        if model.__class__ is not str:
            model = _no_model(model)
        rules = self._models.get(model or unnamed, self._default)
        operator = rules.operator if key_rules is None else joined(key_rules, rules.operator)
        if operator is not None:
            apply_rules(group, content, operator, changes)
        table = TABLES[group]
        surplus: list[str] | None = None
        related = 0
        for name, value in content.items():
            field = table.get(name)
            if value is None or field is None:
                surplus = surplus or []
                surplus.append(name)
                continue
            if field.access != "public" and not (admin and field.access == "admin"):
                raise _not_yours(name, field)
            field.check(name, value)
            if name in _RELATED_NAMES:
                related += 1
        if surplus is not None:
            _leave_out(content, surplus, group, changes)
        if related > 1:
            _check_aliases(content)
        prompts = check_meaning(group, content, rules.meaning, changes)
        choices = 1
        if "n" in content or "n_cmpl" in content:
            choices = content.get("n") or content.get("n_cmpl") or 1
            if choices > rules.max_choices:
                raise refusal("n" if "n" in content else "n_cmpl", f"must not be more than {rules.max_choices}.")
        if changes.changed:
            data = orjson.dumps(content)
        lines = changes.header_lines() if changes.warnings or changes.ruled else ""
        ruled = ",".join(changes.ruled) if changes.ruled else ""
        return RequestContent(content, data, model, lines, choices, prompts, ruled)


def _no_model(value: object) -> str:
    """Return the name for a body whose `model` is null. Raises GatewayError for anything else but a string."""
    if value is not None:
        raise refusal("model", f"must be a string, not {kind(value)}.")
    return ""


def without_cache(group: str, content: RequestContent) -> bytes:
    """Return a body by which the engine reuses no earlier prompt, if the group's bodies can say so."""
    if "cache_prompt" not in TABLES[group]:
        return content.data
    return orjson.dumps({**content.fields, "cache_prompt": False})


def _not_yours(name: str, field: Field) -> Exception:
    if field.access == "admin":
        return refusal(name, "is for keys with the scope `admin`.")
    return refusal(name, "is for the server's own use and cannot be set.")


def _leave_out(content: dict[str, Any], names: list[str], group: str, changes: Changes) -> None:
    """Leave out what is null, and what is not known: no later engine shall read it without this table knowing it."""
    changes.changed = True
    table = TABLES[group]
    for name in names:
        value = content.pop(name)
        if name not in table and value is not None:
            check_unsupported(group, name, value)
            changes.warn(f"{name} is not known here and was left out")


def _check_aliases(content: Mapping[str, Any]) -> None:
    for names in ALIASES:
        given = [name for name in names if name in content]
        if len(given) > 1 and any(content[name] != content[given[0]] for name in given):
            raise refusal(given[1], f"contradicts `{given[0]}`.")
    constraints = [name for name in CONSTRAINTS if content.get(name) not in (None, "")]
    form = content.get("response_format")
    if isinstance(form, dict) and form.get("type", "text") != "text":
        constraints.append("response_format")
    if len(constraints) > 1:
        raise refusal(constraints[1], f"cannot be combined with `{constraints[0]}`.")
