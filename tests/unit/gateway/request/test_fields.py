"""The table of fields: what it may say of any field."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.field import Field
from llama_gguf.gateway.request.fields import ALIASES, CONSTRAINTS, TABLES

ENGINES_OWN = ("grammar_lazy", "grammar_triggers", "chat_parser", "preserved_tokens", "id_slot", "generation_prompt")


@pytest.mark.parametrize("group", ["chat", "completions", "responses", "infill", "messages"])
@pytest.mark.parametrize("name", ENGINES_OWN)
def test_what_ended_the_engine_is_internal_on_every_route_that_generates(group: str, name: str) -> None:
    assert TABLES[group][name].access == "internal"


def test_what_is_for_admins_is_told_apart_and_everything_public_has_bounds() -> None:
    free: list[tuple[str, str]] = []
    for group, table in TABLES.items():
        for name, field in table.items():
            numeric = int in field.types or float in field.types
            assert not numeric or (field.low is not None and field.high is not None), (group, name)
            sized = {str, list, dict} & set(field.types)
            assert not sized or field.max_length is not None, (group, name)
            if not field.types and field.access == "public":
                free.append((group, name))
    assert len(free) < 40, free  # these are checked by `meaning`


def test_aliases_and_constraints_are_fields() -> None:
    known = {name for table in TABLES.values() for name in table}
    assert {name for names in ALIASES for name in names} | set(CONSTRAINTS) <= known
    assert all(isinstance(field, Field) for table in TABLES.values() for field in table.values())
