"""The configuration's defaults and stripped parameters of requests, compared with what the gateway's routes take.

Here, because the settings do not know the gateway: it would refuse such a request, or ignore the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llama_gguf.errors import Problem
from llama_gguf.settings.loading.load import InvalidConfigError, Loaded
from llama_gguf.settings.one_model import OneModel, each_model

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import RequestRules


def rule_problems(loaded: Loaded) -> tuple[Problem, ...]:
    """Return what is wrong with the rules of every model and variant, with their positions."""
    found = [
        problem
        for one in each_model(loaded.settings)
        for place, rules in _rules_of(one)
        if rules.defaults or rules.strip  # few have any, and what follows costs 20 ms
        for problem in _problems(place, rules)
    ]
    return loaded.with_origins(found)


def refuse_wrong_rules(loaded: Loaded) -> None:
    """Raise InvalidConfigError if a rule could never have its effect."""
    if problems := rule_problems(loaded):
        raise InvalidConfigError(problems, text=loaded.text, file=loaded.file)


def _rules_of(one: OneModel) -> Iterator[tuple[str, RequestRules]]:
    yield one.place, one.settings.model
    for name, variant in one.settings.model.variants.items():
        yield f"{one.place}.variants.{name}", variant


def _problems(place: str, rules: RequestRules) -> Iterator[Problem]:
    from llama_gguf.gateway.request.operator_parameters import check_default, check_parameter  # noqa: PLC0415 - see above

    for name, value in rules.defaults.items():
        try:
            check_default(name, value)
        except ValueError as error:
            yield Problem("bad-parameter", f"{place}.defaults: {error}", f"{place}.defaults.{name}")
    for number, name in enumerate(rules.strip):
        try:
            check_parameter(name)
        except ValueError as error:
            yield Problem("bad-parameter", f"{place}.strip: {error}", f"{place}.strip[{number}]")
