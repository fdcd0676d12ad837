"""There is one way to write a time as text, one to replace a private file, and one set of words for states.

A second way drifts from the first. It is found by the calls or words that it cannot do without; a test plants some, so
that these checks never fall asleep.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_gguf.states import STOPPED, EngineState, ServiceState

PACKAGE = Path(__file__).parents[2] / "services" / "llama_gguf"


def _formats_time(call: ast.Call) -> bool:
    return _name(call) in {"isoformat", "strftime", "gmtime", "ctime"}


def _renames(call: ast.Call) -> bool:
    """Path.replace takes one argument; those of text, times and dataclasses take two, or names."""
    one = len(call.args) == 1 and not call.keywords
    return (_name(call) in {"replace", "rename"} and one) or ast.unparse(call.func) in {"os.replace", "os.rename"}


OWNERS: dict[str, Callable[[ast.Call], bool]] = {"timestamps.py": _formats_time, "atomic_file.py": _renames}
"""Module -> the calls that it alone may make."""

NOT_PRIVATE_FILES = {
    "cli/commands/render.py": "launch specs, for everybody to read",
    "models/checksum.py": "shares its markers with the other workers on a volume",
    "models/download/partial_file.py": "weights, which take minutes to write, and their notes",
    "models/remote/header_cache.py": "headers of public files, whose loss costs a request",
    "models/hub/cache_layout.py": "links in Hugging Face's cache",
    "runtime/prepare_rundir.py": "links",
}
"""Who renames something else than a private file."""


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _found(owner: str, source: str) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and OWNERS[owner](node)]
    return [f"{call.lineno}: {ast.unparse(call)}" for call in calls]


@pytest.mark.parametrize("owner", OWNERS)
def test_nobody_else_does_it(owner: str) -> None:
    allowed = {owner} | (set(NOT_PRIVATE_FILES) if owner == "atomic_file.py" else set())
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    users = {path: found for path, source in sources.items() if (found := _found(owner, source))}
    assert users.keys() == allowed, {path: found for path, found in users.items() if path not in allowed}


@pytest.mark.parametrize(
    ("owner", "planted"),
    [
        ("timestamps.py", "said = dt.datetime.now(dt.UTC).isoformat()"),
        ("timestamps.py", "said = time.strftime('%Y', time.gmtime())"),
        ("atomic_file.py", "temporary.replace(path)"),
        ("atomic_file.py", "os.replace(temporary, path)"),
    ],
)
def test_a_second_way_is_found(owner: str, planted: str) -> None:
    assert _found(owner, planted)


STATES = {*EngineState, *ServiceState, STOPPED}
OTHER_MEANINGS = {
    ("settings/locations.py", "draining"): "a file's name",
    ("settings/locations.py", "ready"): "a file's name",
    ("cli/commands/up.py", "starting"): "a log line",
    ("gateway/telemetry/metrics.py", "failed"): "how a reload of the keys file ended",
    ("platforms/runpod/hub.py", "ready"): "the name of a test",
}
"""Where one of these words is not a state. One that is no longer there must leave this list."""


def _state_words(source: str) -> set[str]:
    constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and value in STATES}


def test_state_words_stand_in_one_module() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), word)
        for path in PACKAGE.rglob("*.py")
        if path.name != "states.py"
        for word in _state_words(path.read_text(encoding="utf-8"))
    }
    assert found == set(OTHER_MEANINGS), found ^ set(OTHER_MEANINGS)


def test_a_state_word_elsewhere_is_found() -> None:
    assert _state_words('if engine.state == "ready": pass') == {"ready"}
    assert _state_words('State = Literal["loading", "stopped", "other"]') == {"loading", "stopped"}
