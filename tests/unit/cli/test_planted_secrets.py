"""No command shows a secret: each one is run with the same list of them planted in all that it reads.

Planted are secrets by name and by shape, in the configuration's wrong places, in variables, in flags and in logs. A new
command must be listed here with its arguments.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import yaml

from llama_gguf.cli.__main__ import cli, run
from llama_gguf.rundir import failure as failures
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.failure import Failure
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, locate, parse
from support.ports import free_port

HUB = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
OPENAI = "sk-proj-Zq8Wm2Xv7Lp4Tn9Rb3Kc6"
RANDOM = "wJalrXUtnFEMIK7MDENGbPxRfiCYzExAmPle8Kq"
WORD = "correct-horse-battery"
VARIABLES = {
    "STORE_WORD": "store/pass word+1",
    "WEIGHTS": "weights-token 77",
    "FIRST": "first-key-" + "q7" * 20,
    "MYTOKEN": "my-plain-token",
    "DBPASS": "dbpass-value-9",
    "HF_TOKEN": HUB,
    "DATABASE": "Server=db;Database=x;Pwd=mssql-word-4",
    "ALERTS": "https://hooks.slack.com/services/T0AB/B0CD/slackhook99",
    "LICENCE": "AAAA-BBBB-CCCC-9911",
    "HTTPS_PROXY": "http://proxyuser:proxy-word-5@127.0.0.1:9",
    "NVIDIA_API_KEY": "nvapi-ZZ9-plural-z-alpha",
    "RUNPOD_API_KEY": "rpa_WQ81LLMNB34RT",
}
# What of their values is secret: hosts are not.
PARTS = {"DATABASE": "mssql-word-4", "ALERTS": "slackhook99", "HTTPS_PROXY": "proxy-word-5"}
IN_VARIABLES = [HUB, *({**VARIABLES, **PARTS}[name] for name in VARIABLES)]
IN_LOGS = [*VARIABLES.values(), OPENAI]

# A command -> its arguments. Words in capitals are replaced.
COMMANDS: dict[str, Sequence[str]] = {
    "up": ("--config", "CONFIG"),
    "check": ("CONFIG",),
    "config show": ("CONFIG", "--origin"),
    "config env": ("--set-only",),
    "plan": ("CONFIG", "--format", "json"),
    "status": ("--config", "CONFIG", "--json"),
    "keys list": ("--config", "CONFIG"),
    "keys show": ("alice", "--config", "CONFIG"),
    "keys generate": ("bob", "--config", "CONFIG", "--quiet"),
    "keys update": ("alice", "--config", "CONFIG", "--rpm", "5"),
    "keys import": ("IMPORTED", "--config", "CONFIG"),
    "keys verify": ("--config", "CONFIG"),
    "keys remove": ("alice", "--config", "CONFIG"),
    "keys rotate": ("alice", "--config", "CONFIG", "--quiet"),
    "usage": ("--config", "CONFIG"),
    "audit verify": ("--config", "CONFIG"),
    "audit show": ("--config", "CONFIG"),
    "model info": ("--config", "CONFIG"),
    "model download": ("--config", "CONFIG"),
    "models list": ("--config", "CONFIG"),
    "models pull": ("--config", "CONFIG"),
    "models verify": ("--config", "CONFIG"),
    "models prune": ("--dry-run", "--config", "CONFIG"),
    "models load": ("m", "--no-wait", "--config", "CONFIG"),
    "models unload": ("m", "--no-wait", "--config", "CONFIG"),
    "models pin": ("m", "--no-wait", "--config", "CONFIG"),
    "models unpin": ("m", "--config", "CONFIG"),
    "models remove": ("m", "--dry-run", "--config", "CONFIG"),
    "diagnostics": ("--config", "CONFIG", "--run-dir", "RUN", "--json"),
    "render runpod": ("CONFIG",),
    "render vast": ("CONFIG",),
    "render compose": ("CONFIG",),
    "render kubernetes": ("CONFIG",),
}
READS_NO_CONFIGURATION = {"gen", "render all"}  # those of the examples


def leaves(command: click.Command, name: str = "") -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield name
        return
    context = click.Context(command)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        assert found is not None
        yield from leaves(found, f"{name} {child}".strip())


def test_every_command_is_listed() -> None:
    assert {name for name in leaves(cli) if name not in READS_NO_CONFIGURATION} == set(COMMANDS)


def shown(secret: str, text: str) -> bool:
    """Whether `text` holds more than a few characters of `secret`, also encoded."""
    whole = text.replace("\n", "")
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    pieces = {secret[start : start + 8] for start in range(4, max(5, len(secret) - 7))}  # not the known prefix
    forms = {quote(secret, safe=""), encoded, *pieces}
    return any(form in place for form in forms for place in (text, whole))


def test_what_counts_as_shown() -> None:
    secret = "0123456789abcdef"
    parts = ("x 456789ab", "0123456789\nabcdef", base64.b64encode(secret.encode()).decode())
    assert all(shown(secret, text) for text in parts)
    assert not shown(secret, "0123***")


def written(folder: Path, *, without: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file() and path != without]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)


class Place:
    """A folder with a configuration, and the environment for the commands on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.run_dir = folder / "run"
        for name in list(os.environ):
            if name.startswith(("LLAMA_GGUF", "HF_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(folder))

    def invoke(self, name: str, *more: str) -> int:
        places = {
            "IMPORTED": str(self.folder / "imported"),
            "CONFIG": str(self.config),
            "RUN": str(self.run_dir),
        }
        return run([*name.split(), *(places.get(word, word) for word in COMMANDS[name]), *more])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


MISPLACED = {
    "model.token_env": HUB,
    "model.url": f"https://user:{WORD}@127.0.0.1:9/m.gguf",
    "auth.bootstrap.env": OPENAI,
    "auth.bootstrap.file": RANDOM,
    "limits.store": f"redis://:{WORD}@127.0.0.1:9/0",
    "limits.store_password_env": "n0-name/0f-m1ne",
    "api_key": OPENAI,
}
REPORT_SETTINGS = ("up", "check", "config show", "plan", "status", "model", "diagnostics", "render")


@pytest.mark.parametrize("form", ["file", "variable", "flag"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith(REPORT_SETTINGS)])
def test_secrets_in_the_wrong_places(
    name: str, form: str, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: dict[str, Any] = {"paths": {"data_dir": str(place.folder / "data"), "run_dir": str(place.run_dir)}}
    flags: list[str] = []
    for setting, value in MISPLACED.items():
        if form == "file":
            *groups, last = setting.split(".")
            node = tree
            for group in groups:
                node = node.setdefault(group, {})
            node[last] = value
        elif form == "variable":
            monkeypatch.setenv("LLAMA_GGUF__" + setting.upper().replace(".", "__"), value)
        else:
            flags += ["--set", f"{setting}={value}"]
    place.config.write_text(yaml.safe_dump(tree))
    code = place.invoke(name, *flags)
    captured = capfd.readouterr()
    text = captured.out + captured.err
    everything = text + written(place.folder, without=place.config)
    assert not [secret for secret in (HUB, OPENAI, RANDOM, WORD, "n0-name/0f-m1ne") if shown(secret, everything)]
    assert code == (0 if name == "diagnostics" else 78), text
    if code and not (name.startswith("render") and form == "variable"):  # it reads no variables
        # A model with another wrong setting is not checked as a whole.
        names = set(MISPLACED) - {"model.url"} - ({"api_key"} if form == "variable" else set())
        assert not [setting for setting in names if setting not in text], text


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "up"])
def test_secrets_in_variables_logs_and_urls(
    name: str, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    tree = {
        "paths": {"data_dir": str(place.folder / "data"), "run_dir": str(place.run_dir)},
        "model": {"url": f"http://127.0.0.1:{free_port()}/m.gguf", "token_env": "WEIGHTS"},
        "auth": {"bootstrap": {"env": "FIRST"}},
        "limits": {"store": "redis://127.0.0.1:9/0", "store_password_env": "STORE_WORD"},
        "health": {"host": "127.0.0.1", "port": free_port()},
        "engine": {"binary": "/bin/true"},
    }
    place.config.write_text(json.dumps(tree, indent=1))
    settings = parse(tree)
    snapshot = Snapshot(settings=settings, locations=locate(settings, dict(os.environ)))
    found = RunDir(root=place.run_dir)
    found.root.mkdir()
    snapshots.write(snapshot, found.snapshot)
    if name.startswith("keys") and name != "keys generate":
        assert run(["keys", "generate", "alice", "--config", str(place.config), "--quiet"]) == 0
        capfd.readouterr()
    if name == "diagnostics":  # which quotes logs; the files themselves are the programs' own
        lines = [f"error: {form}" for value in IN_LOGS for form in (value, quote(value, safe=""))]
        found.log("engine").write_text("\n".join(lines) + "\n")
        failures.write(Failure("engine", 1, None, f"bad {HUB}", "", "", (f"tail {OPENAI}",), 0.0), found.failure)
    more = ["--lines", "1000"] if name == "diagnostics" else []
    place.invoke(name, *more)
    captured = capfd.readouterr()
    text = captured.out + captured.err
    if name != "diagnostics":
        text += written(place.folder, without=place.config)
    secrets = [*IN_VARIABLES, OPENAI]
    assert not [secret for secret in secrets if shown(secret, text)], text
