"""The layout one level below the package map: no circle, small folders, the arrows within the gateway, true names.

`test_architecture` holds the arrows between the parts of the package.
"""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from docs.diagrams.import_graph import graph, modules, sources

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services" / "llama_gguf"
GATEWAY = "llama_gguf.gateway."

MAX_MODULES_IN_A_FOLDER = 15

# Sub-packages and modules of the gateway, lowest first. Each may import those of lower lines only, and itself.
MAX_LEVELS = 9
LEVELS = (
    "http1 tokens api hold_time translate",
    "scheduling ratelimit upstream exchange inputs request allocator residency",
    "relay telemetry",
    "backends",
    "inference builtin_routes",
    "pipeline",
    "app",
    "server",
    "__main__",
)
# What comments put in backticks and no code of ours has: made-up names, and other programs'.
OTHER_NAMES = {"llamacpp_x", "supervisor.getState"}


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(reversed(error.args[1]))}")


def test_folders_are_small() -> None:
    counted = Counter(path.parent for path in modules().values() if path.name != "__init__.py")
    full = {str(folder.relative_to(ROOT)): n for folder, n in counted.items() if n > MAX_MODULES_IN_A_FOLDER}
    assert not full, full


# --- the arrows within the gateway -------------------------------------------------------------------------------


def _gateway_arrows() -> set[tuple[str, str]]:
    """Which module of the gateway imports which, without their common prefix."""
    return {
        (name.removeprefix(GATEWAY), other.removeprefix(GATEWAY))
        for name, others in graph().items()
        for other in others
        if name.startswith(GATEWAY) and other.startswith(GATEWAY)
    }


def test_the_gateways_parts_import_downwards() -> None:
    assert len(LEVELS) <= MAX_LEVELS
    level = {part: number for number, parts in enumerate(LEVELS) for part in parts.split()}
    upwards = set()
    for name, other in _gateway_arrows():
        part, used = name.split(".")[0], other.split(".")[0]
        if part != used and level[used] >= level[part]:
            upwards.add((name, other))
    assert not upwards, f"upwards or sideways: {sorted(upwards)}"


def test_the_http_server_knows_nothing_of_the_gateway() -> None:
    used = {other for name, other in _gateway_arrows() if name.startswith("http1.") and not other.startswith("http1.")}
    assert not used


def test_every_part_of_the_gateway_has_a_level() -> None:
    parts = {name.removeprefix(GATEWAY).split(".")[0] for name in modules() if name.startswith(GATEWAY)}
    assert sorted(parts) == sorted(" ".join(LEVELS).split())


# --- the state of a request ---------------------------------------------------------------------------------------

EXCHANGE = PACKAGE / "gateway" / "exchange.py"
# Who else writes an attribute, and why.
SECOND_WRITERS = {("relay", "bytes_sent"): "counts what passes without a call, as it does for each token"}


def _written_by() -> dict[str, str]:
    """Which part of the gateway writes each attribute of an Exchange, by the comments that group them in its class."""
    owners: dict[str, str] = {}
    owner = ""
    for line in EXCHANGE.read_text(encoding="utf-8").partition("class Exchange:")[2].splitlines():
        if found := re.match(r"    # Written (?:by `(\w+)`|here)", line):
            owner = found[1] or "exchange"
        elif line.startswith("    def "):
            break
        elif owner and (found := re.match(r"    (\w+)(?::[^=]+)? = ", line)):
            owners[found[1]] = owner
    return owners


def test_each_attribute_of_a_request_is_written_by_its_owner() -> None:
    owners = _written_by()
    assert len(owners) > 20
    foreign = set()
    for name, source in sources().items():
        part = name.removeprefix(GATEWAY).split(".")[0]
        for node in ast.walk(source):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            if ast.unparse(node.value).endswith("exchange"):
                assert node.attr in owners, f"{name}: {ast.unparse(node)}: no attribute of Exchange"
                if owners[node.attr] != part:
                    foreign.add((part, node.attr))
    assert foreign == set(SECOND_WRITERS)


# --- names in prose ----------------------------------------------------------------------------------------------


@cache
def _split(path: Path) -> tuple[tuple[tuple[int, str], ...], str]:
    """The comments and docstrings of a file, each with its line, and the text of everything else."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = [line for line in node.body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)]
            docstrings.update(line.lineno for line in found)
            node.body = [line for line in node.body if line not in found]
    prose = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.start[0] in docstrings)
    ]
    return tuple(prose), ast.unparse(tree)


@cache
def _our_code() -> str:
    return "\n".join(_split(path)[1] for path in modules().values())


@cache
def _identifiers() -> frozenset[str]:
    names = {part for name in modules() for part in name.split(".")}
    return frozenset(names | set(re.findall(r"\w+", _our_code())))


def _defines(module: str, name: str) -> bool:
    """Whether a module has a submodule or a name at its top level."""
    if f"{module}.{name}" in modules():
        return True
    return any(
        name in (getattr(node, "name", None), *(target.id for target in _targets(node) if isinstance(target, ast.Name)))
        for node in sources()[module].body
    )


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _known(dotted: str) -> bool:
    """Whether `a.b` is a module of ours, a name at the top of one, or stands in our code: an expression, or a text."""
    owner, _, name = dotted.rpartition(".")
    return any(
        module.endswith(f".{dotted}") or (module.endswith(f".{owner}") and _defines(module, name))
        for module in modules()
    ) or bool(re.search(rf"\b{re.escape(dotted)}\b", _our_code()))


def _prose_files() -> list[Path]:
    return sorted(path for top in ("services", "tests", "image") for path in (ROOT / top).rglob("*.py"))


def _exists(named: str, beside: Path) -> bool:
    """Whether there is what a comment names: a path or a module."""
    if "/" in named or named.endswith(".py"):
        return any(any(top.glob(named)) for top in (ROOT, PACKAGE, beside))
    owner, _, name = named.rpartition(".")
    return named in modules() or (owner in modules() and _defines(owner, name))


PATHS = re.compile(
    r"(?<![\w/.-])(?:services|tests|schema|image|config)/[\w./*-]*\w"  # from the top of the repository
    r"|(?<![\w/.-])[\w/-]+\.py\b"  # from there, from the top of the package or from the same folder
    r"|\bllama_gguf(?:\.[a-z_]\w*)+"
)


def test_paths_in_comments_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {named}"
        for path in _prose_files()
        for line, text in _split(path)[0]
        for named in PATHS.findall(text)
        if not _exists(named, path.parent)
    ]
    assert not missing, "\n".join(missing)


def test_names_in_comments_of_the_package_are_names_in_its_code() -> None:
    """What stands in backticks and looks like a name: a module that was moved leaves such names behind."""
    unknown = []
    for path in modules().values():
        for line, text in _split(path)[0]:
            for named in re.findall(r"`([a-z_]\w+(?:\.[a-z_]\w*)*)`", text):
                known = _known(named) if "." in named else named in _identifiers()
                if not known and named not in OTHER_NAMES:
                    unknown.append(f"{path.relative_to(ROOT)}:{line}: {named}")
    assert not unknown, "\n".join(unknown)


def test_programs_in_texts_import_what_exists() -> None:
    """Tests run small programs in containers and processes, which no type checker reads."""
    found = [
        (path, module, name.split(" as ")[0].strip())
        for path in _prose_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for module, names in re.findall(r"^from (llama_gguf[\w.]*) import ([\w, ]+)$", node.value, re.MULTILINE)
        for name in names.split(",")
    ]
    assert found
    missing = [
        f"{path.relative_to(ROOT)}: {module}.{name}"
        for path, module, name in found
        if f"{module}.{name}" not in modules()
        and not (module in modules() and hasattr(importlib.import_module(module), name))
    ]
    assert not missing, "\n".join(missing)
