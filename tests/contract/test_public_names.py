"""Public names of the package: a class has its own, and each is there for the package, not for the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from docs.diagrams.import_graph import PACKAGE, graph, reachable, sources

ROOT = Path(__file__).parents[2]

SECTIONS = f"{PACKAGE}.settings.sections."
"""Where fields are keys of config.yaml: pydantic reads them, and the schema's tests hold them."""

# Names that only others call or read, by their class or module, and who does.
USED_BY_OTHERS = {
    "cli.__main__.LazyGroup": "click: list_commands get_command format_commands",
    "engine.flags.Flag": "schema/engine/flags.json has every field: variable",
    "gateway.http1.connection.ClientConnection": "asyncio: connection_made connection_lost data_received eof_received",
    "gateway.http1.request_parser.ParserEvents": (
        "httptools: on_message_begin on_url on_header on_headers_complete on_body on_message_complete"
    ),
    "gateway.http1.response_writer.ResponseWriter": "asyncio: pause_writing resume_writing",
    "gateway.telemetry.usage_store.Used": "the usage command unpacks a row: requests errors cached_tokens",
    "gateway.tokens.counts.Tokens": "the recorder unpacks the counts: tokens_per_second",
    "gateway.upstream.client.EngineConnection": "asyncio: connection_made data_received connection_lost",
    "gateway.upstream.response_parser.ChunkFraming": (
        "httptools: on_message_begin on_header on_headers_complete on_message_complete"
    ),
    "gateway.upstream.response_parser.ChunkDecoder": "httptools: on_body",
    "health.server._Connection": "asyncio: connection_made connection_lost data_received",
    "platforms.serialize._Dumper": "PyYAML: ignore_aliases",
    "rundir.unix_xmlrpc._Transport": "xmlrpc.client: make_connection",
    "settings.loading.nested_variables._Base": "pydantic: model_config",
}


class Name(NamedTuple):
    """A public name that `owner`, a module or a class, defines."""

    owner: str
    name: str
    in_class: bool


class Uses(NamedTuple):
    """The names that code uses: as `x.name` and otherwise. A text `a.module:name` is a use, whoever has it."""

    attributes: set[str]
    others: set[str]


def _defined(owner: str, body: list[ast.stmt], *, in_class: bool = False) -> Iterator[Name]:
    for node in body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not any("command(" in ast.unparse(decorator) for decorator in node.decorator_list):  # click's
                names = [node.name]
        elif isinstance(node, ast.ClassDef):
            names = [node.name]
            yield from _defined(f"{owner}.{node.name}", node.body, in_class=True)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        elif isinstance(node, ast.If | ast.Try):
            yield from _defined(owner, node.body, in_class=in_class)
        yield from (Name(owner, name, in_class) for name in names if not name.startswith("_"))


def _foreign(tree: ast.AST) -> Iterator[str]:
    """Yield the names that code imports from elsewhere: what is theirs, as `json.loads`, is no use of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.asname or alias.name for alias in node.names if not alias.name.startswith(PACKAGE))
        elif isinstance(node, ast.ImportFrom) and not node.level and not str(node.module).startswith(PACKAGE):
            yield from (alias.asname or alias.name for alias in node.names)


def _uses(tree: ast.AST) -> Uses:
    foreign = set(_foreign(tree))
    attributes: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            if not (isinstance(node.value, ast.Name) and node.value.id in foreign):
                attributes.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            others.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            others.update(alias.name for alias in node.names)
        elif isinstance(node, ast.MatchClass):
            attributes.update(node.kwd_attrs)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            others.add(node.value)
    return Uses(attributes, others)


@cache
def _image() -> Uses:
    found = [_uses(ast.parse(path.read_text(encoding="utf-8"))) for path in (ROOT / "image").rglob("*.py")]
    return Uses(set().union(*(uses.attributes for uses in found)), set().union(*(uses.others for uses in found)))


def _interfaces() -> set[str]:
    """Return the names that a Protocol of ours has: who implements it is called through it."""
    classes = [node for tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    protocols = [node for node in classes if any("Protocol" in ast.unparse(base) for base in node.bases)]
    return {found.name for node in protocols for found in _defined("", node.body, in_class=True)}


def unused(modules: set[str]) -> set[tuple[str, str]]:
    """Return owner and name of what is public in `modules` and used by none that imports it or that it imports."""
    used = {module: _uses(tree) for module, tree in sources().items()}
    reach = {module: reachable(graph(), module) for module in sources()}
    called = set().union(*(uses.attributes for uses in used.values())) & _interfaces()
    loaded_by_name = set().union(*(uses.others for uses in used.values()))
    found = set()
    for module in modules:
        near = [used[other] for other in used if module in reach[other] or other in reach[module]]
        attributes = set().union(*(uses.attributes for uses in near)) | _image().attributes | called
        others = set().union(*(uses.others for uses in near)) | _image().others
        for name in _defined(module, sources()[module].body):
            everything = attributes if name.in_class else attributes | others
            if name.name not in everything and f"{name.owner}:{name.name}" not in loaded_by_name:
                found.add((name.owner.removeprefix(f"{PACKAGE}."), name.name))
    return found


def test_no_name_is_there_for_tests_only() -> None:
    listed = {(owner, name) for owner, why in USED_BY_OTHERS.items() for name in why.rpartition(": ")[2].split()}
    found = unused({module for module in sources() if not module.startswith(SECTIONS)})
    assert not found - listed, f"nothing in services/ or image/ uses these: {sorted(found - listed)}"
    assert not listed - found, f"need no reason any more: {sorted(listed - found)}"


SAMPLE = """
import json
CONSTANT = 1
def function(): return json.loads
class Sample:
    field: int
    def used(self): return self.used
    @property
    def loads(self): return 1
class _Inner:
    def method(self): pass
"""


def test_a_name_for_tests_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {**sources(), "llama_gguf.sample": ast.parse(SAMPLE)}
    monkeypatch.setitem(globals(), "sources", lambda: planted)
    arrows = {**graph(), "llama_gguf.sample": set[str]()}
    monkeypatch.setitem(globals(), "graph", lambda: arrows)
    names = {"CONSTANT", "function", "Sample"}
    assert unused({"llama_gguf.sample"}) == {("sample", name) for name in names} | {
        ("sample.Sample", "field"),
        ("sample.Sample", "loads"),
        ("sample._Inner", "method"),
    }


# --- classes ------------------------------------------------------------------------------------------------------

# Classes that share a name, by their modules, and why both may have it.
SHARED_CLASS_NAMES = {
    "Cors": "a section of the configuration, and what the gateway makes of it",
    "Diagnosis": "engine makes it; the listener, which may not import engine, says as a Protocol what it needs of it",
    "Gateway": "a section of the configuration, and the program",
    "Metrics": "a section of the configuration, and the gateway's",
}


def test_a_class_has_its_name_alone() -> None:
    owners: dict[str, list[str]] = {}
    for module, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(module.removeprefix(f"{PACKAGE}."))
    shared = {name: modules for name, modules in owners.items() if len(modules) > 1}
    unlisted = {name: modules for name, modules in shared.items() if name not in SHARED_CLASS_NAMES}
    assert not unlisted, unlisted
    assert shared.keys() == SHARED_CLASS_NAMES.keys(), "not shared any more"
