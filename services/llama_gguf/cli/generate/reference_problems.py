"""Sections of schema/reference.md about problems outside the gateway: keys, rendering, the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llama_gguf.cli.generate.markdown import table, text
from llama_gguf.engine.known_failures import RULES, SIGNALS
from llama_gguf.keys.error_codes import KEYS_CODES
from llama_gguf.platforms.error_codes import RENDER_CODES
from llama_gguf.rundir.notices import NOTICE_CODES
from llama_gguf.settings.messages.codes import PROBLEM_CODES

ENGINE_PROBLEMS = ("context-over-training", "no-pooling", "no-reranker", "no-chat-template")
"""Configuration problems that depend on the model's file, so that the engine's program reports them at its start."""
_PLACEHOLDERS = re.compile(r"(?:\{\w+\})+")
"""Where a rule's sentence quotes the engine's log."""


def keys_section() -> str:
    """Return the table of codes of problems with keys."""
    return _codes("Problems with keys and the audit log", KEYS_CODES)


def rendering_section() -> str:
    """Return the table of codes of rendering problems."""
    return _codes("Rendering problems", RENDER_CODES)


def notices_section() -> str:
    """Return the table of the warnings of a running appliance."""
    codes = {**{code: PROBLEM_CODES[code] for code in ENGINE_PROBLEMS}, **NOTICE_CODES}
    intro = "In `warnings` of `/health` and of `status --json`, each with a message and a hint, and in the log."
    return _codes("Warnings of a running appliance", codes, intro)


def problems_section() -> str:
    """Return the codes of configuration problems."""
    return _codes("Configuration problems", PROBLEM_CODES, "The `code` in `check --format json`.")


def _codes(title: str, codes: Mapping[str, str], intro: str = "") -> str:
    rows = [(f"`{code}`", text(meaning)) for code, meaning in codes.items()]
    return "\n\n".join(filter(None, (f"## {title}", intro, table(("code", "meaning"), rows))))


def failures_section() -> str:
    """Return the table of the engine's known failures."""
    known = [(rule.cause, rule.fix) for rule in RULES] + [(one.cause, one.fix) for one in SIGNALS.values()]
    rows = [tuple(text(_PLACEHOLDERS.sub("…", sentence)) for sentence in pair) for pair in known]
    return f"## Known failures of the engine\n\n{table(('cause', 'what to do'), rows)}"
