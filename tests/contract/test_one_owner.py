"""A fact stands in one module, its owner; everything else asks the owner. Each of these once stood in several."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "services" / "llama_gguf"

PLATFORM = "settings/platform.py"
ROUTES = "gateway/api/routes.py"  # the gateway's own liveness

# The fact, a pattern that matches a literal which states it (the whole literal, as Python would print it), and the
# modules that may: its owner, and those where the same letters or digits mean something else.
FACTS: tuple[tuple[str, str, str], ...] = (
    ("how a GGUF file begins", r"b'GGUF'", "settings/gguf_file.py"),
    ("how a GGUF file's name ends", r"'\.gguf'", "settings/gguf_file.py"),
    (
        "the sources of weights",
        r"\('path', 'name', 'hf', 'url'\)|'.*path, name, hf and url.*'",
        "settings/sections/sources.py",
    ),
    ("the sources that are downloaded", r"\('hf', 'url'\)", "settings/sections/sources.py"),
    ("names of the hosts' variables", r"'(RUNPOD_(ENDPOINT|POD)_ID|CONTAINER_(ID|API_KEY)|KUBERNETES_.*)'", PLATFORM),
    ("RunPod's limits", r"330(\.0)?|30000000", PLATFORM),
    ("RunPod's network volume", r"'/runpod-volume.*'", PLATFORM),
    ("the address of every interface", r"'0\.0\.0\.0'", "settings/hosts.py"),
    ("the health server's paths", r"'/(livez|readyz|startupz)'", f"settings/health_paths.py {ROUTES}"),
    ("the platform's health check", r"'/ping'", f"settings/health_paths.py {ROUTES}"),
    ("how long the path of a unix socket may be", r"107", "settings/locations.py"),
    ("words for yes", r"\((?=.*'true')(?=.*'yes').*\)", "settings/words.py"),
    ("what somebody probably meant", r"import difflib", "settings/words.py"),
    ("the image's configuration file", r"'/etc/llama-gguf/config.yaml'", "settings/locations.py"),
    ("supervisord's files", r"'supervisord\.(log|pid|sock)'", "settings/locations.py"),
    ("where libraries lie", r"\('\.\./lib', '\.'\)", "engine/cpu_libraries.py"),
    ("control characters of any kind", r"'.*x7f-.*u2028.*'", "logs.py"),
    ("what stands for a secret", r"'.*\*\*\*.*'", "settings/redaction.py"),
    ("which words are secrets", r"'.*(passw|[^\w]sk-|apikey|hf_[^ht]).*\|.*'", "settings/redaction.py"),
    ("the image's data directory", r"'/data'", "settings/locations.py"),
)


@cache
def _literals() -> tuple[tuple[str, int, str], ...]:
    """Module, line and text of every literal and import of the package; docstrings are none.

    A tuple, list or set counts as a whole too, written as a tuple.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [(str(path.relative_to(PACKAGE)), line, text) for line, text in _values(tree)]
    return tuple(found)


def _values(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Import):
        yield from ((node.lineno, f"import {alias.name}") for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield node.lineno, f"import {node.module}"
    if isinstance(node, ast.Constant):
        yield node.lineno, repr(node.value)
    if isinstance(node, ast.Tuple | ast.Set | ast.List) and node.elts:
        items = [item.value if isinstance(item, ast.Constant) else ... for item in node.elts]
        yield node.lineno, f"({', '.join(map(repr, items))})"
    for child in ast.iter_child_nodes(node):
        yield from _values(child)


@pytest.mark.parametrize(("pattern", "owners"), [fact[1:] for fact in FACTS], ids=[fact[0] for fact in FACTS])
def test_a_fact_stands_in_one_module(pattern: str, owners: str) -> None:
    owner, *_others = owners.split()
    places = [(module, line, text) for module, line, text in _literals() if re.fullmatch(pattern, text)]
    elsewhere = [f"{module}:{line}: {text}" for module, line, text in places if module not in owners.split()]
    assert not elsewhere, f"ask {owner} instead: {elsewhere}"
    missing = set(owners.split()) - {module for module, _, _ in places}
    assert not missing, f"no longer states it: {missing}"
