"""Patterns that a grammar can be made of."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.constraints.patterns import pattern_defect

ENFORCED = ["^a$", "^[a-z]+$", "^(?:a|b)*$", "^\\($", "^[0-9]{2,5}$", "^[0-9]{3}$", "^a{2,}$", "^(a(b)?)$", "^.$", "^$"]
IGNORED = ["a", "^a", "a$", "^\\d+$", "^\\w$", "^a\\b$", "^(?=a)b$", "^(?i)a$", "^[\\d]$", "^(?P<n>a)$", "^a$b$"]
DEFECTIVE = ["^(a$", "^a)$", "^*$", "^[a$", "^a{$", "^a{1,2,3}$", "^a{9999}$", "^]$", "^" + "(" * 200 + ")" * 200 + "$"]


@pytest.mark.parametrize("pattern", ENFORCED)
def test_enforced(pattern: str) -> None:
    assert pattern_defect(pattern) == ""


@pytest.mark.parametrize("pattern", [*IGNORED, *DEFECTIVE])
def test_not_enforced(pattern: str) -> None:
    assert pattern_defect(pattern)
