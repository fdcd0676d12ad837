"""Each rule for a known failure is whole."""

from __future__ import annotations

from llama_gguf.engine.known_failures import RULES


def test_every_rule_fills_its_sentence() -> None:
    for rule in RULES:
        assert rule.permanent or not rule.configuration  # what the configuration says stays said
        names = rule.pattern.groupindex
        assert rule.cause.format(**dict.fromkeys(names, "x"))
        assert rule.fix.format(**dict.fromkeys(names, "x"))
        assert rule.fix
