"""The arrows of the package map, and that importing any module in a clean process does nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from docs.diagrams.import_graph import imports, modules

# Which part of the package may import which others of ours; itself is always allowed.
FOUNDATION = {"errors", "logs", "cpu", "states", "timestamps"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "logs": {"timestamps"},
    "cpu": set(),
    "states": set(),
    "timestamps": set(),
    "open_connections": set(),
    "atomic_file": FOUNDATION,
    "api_errors": FOUNDATION,
    "audit": FOUNDATION | {"atomic_file"},
    "settings": FOUNDATION,
    "models": FOUNDATION | {"atomic_file", "settings"},
    "keys": FOUNDATION | {"atomic_file", "audit", "settings"},
    "rundir": FOUNDATION | {"atomic_file", "settings"},
    "engine": FOUNDATION | {"atomic_file", "settings", "rundir", "models", "keys"},
    "gateway": FOUNDATION | {"api_errors", "audit", "open_connections", "settings", "rundir", "models", "keys"},
    "health": FOUNDATION | {"open_connections", "settings", "rundir", "models", "keys"},
    "platforms": FOUNDATION | {"settings", "models", "keys"},
    "runtime": FOUNDATION | {"settings", "rundir"},
    "cli": FOUNDATION
    | {"api_errors", "audit", "settings", "rundir", "models", "keys"}
    | {"engine", "gateway", "health", "platforms", "runtime"},
}
TERMINAL_ONLY = {"click", "rich"}

MODULES = list(modules())


def _part(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def _imports(module: str) -> set[str]:
    return {target for _, target in imports(module)}


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    part = _part(module)
    if not part:  # the package itself
        assert not {name for name in _imports(module) if name.startswith("llama_gguf.")}
        return
    ours = {_part(name) for name in _imports(module) if name.startswith("llama_gguf.")}
    ours = {name for name in ours if name and name != "__version__"}
    assert ours - {part} <= ALLOWED[part], f"{module} imports {sorted(ours - {part} - ALLOWED[part])}"


@pytest.mark.parametrize("module", MODULES)
def test_terminal_libraries_live_in_cli_only(module: str) -> None:
    if _part(module) == "cli":
        pytest.skip("the command line may")
    assert not {name.split(".")[0] for name in _imports(module)} & TERMINAL_ONLY


def test_every_part_has_a_rule() -> None:
    parts = {_part(module) for module in MODULES} - {""}
    assert parts == set(ALLOWED)


# Runs in a clean interpreter: imports one module after another while an audit hook watches.
PROBE = """
import json, os, sys, threading
modules = json.loads(sys.argv[1])
deeds = []
WATCHED = ("socket.", "subprocess.Popen", "os.system", "os.fork", "os.exec", "os.kill", "os.mkdir", "os.remove",
           "os.rename", "os.chmod", "shutil.", "urllib.Request", "sqlite3.connect")
current = ""
def hook(event, arguments):
    if not current:
        return
    if event == "open":
        path, mode, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and "__pycache__" not in str(path):
            deeds.append((current, event, str(path)))
    elif event.startswith(WATCHED) and event not in ("socket.__new__", "socket.gethostname"):
        deeds.append((current, event, str(arguments)[:200]))
sys.addaudithook(hook)
environment = dict(os.environ)
for name in modules:
    current = name
    __import__(name)
    current = ""
    if threading.active_count() > 1:
        deeds.append((name, "thread", ""))
if dict(os.environ) != environment:
    deeds.append(("?", "environ", ""))
print(json.dumps(deeds))
"""


def test_importing_does_nothing() -> None:
    mains = {module for module in MODULES if module.endswith(".__main__")}
    targets = [module for module in MODULES if module not in mains]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, json.dumps(targets)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 1, f"an import printed: {lines[:-1]}"
    assert json.loads(lines[0]) == []


@pytest.mark.parametrize("module", ["llama_gguf.engine", "llama_gguf.gateway", "llama_gguf.health"])
def test_programs_start_without_what_they_do_not_need(module: str) -> None:
    """They would cost every program cold-start time and memory; pydantic only the gateway needs, to read its keys."""
    code = f"import sys, importlib; importlib.import_module({module + '.__main__'!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    unwanted = TERMINAL_ONLY | {"yaml", "pydantic_settings", "supervisor", "llama_gguf.settings.sections.settings"}
    assert not loaded & (unwanted if module == "llama_gguf.gateway" else unwanted | {"pydantic", "pydantic_core"})


# What may name pydantic: the settings and their tools, and the one module that holds the rules of a key.
PYDANTIC_USERS = ("llama_gguf.settings.", "llama_gguf.cli.", "llama_gguf.keys.validation")
# These load it all the same: they read the keys file, or start what does.
KEY_READERS = {"llama_gguf.gateway.app", "llama_gguf.gateway.server", "llama_gguf.gateway.__main__"}


def test_pydantic_is_named_where_rules_are() -> None:
    others = [name for name in MODULES if not name.startswith(PYDANTIC_USERS)]
    roots = {name: {found.split(".")[0] for found in _imports(name)} for name in others}
    offenders = [name for name, found in roots.items() if found & {"pydantic", "pydantic_core"}]
    assert not offenders, offenders


def test_the_gateway_loads_pydantic_for_the_keys_file_alone() -> None:
    targets = [name for name in MODULES if name.startswith("llama_gguf.gateway") and name not in KEY_READERS]
    targets += ["llama_gguf.keys.record", "llama_gguf.keys.keyring"]
    code = f"import sys, {', '.join(targets)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(done.stdout.split()) & {"pydantic", "pydantic_core"}
