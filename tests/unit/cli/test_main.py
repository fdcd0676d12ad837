"""The entry point: lazy commands, and how errors reach a person."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from llama_gguf import __version__
from llama_gguf.cli import __main__ as entry
from llama_gguf.errors import ConfigError, ExitCode, LaunchError, ModelError, Problem
from llama_gguf.settings.loading.load import InvalidConfigError


def run(*arguments: str) -> int:
    """Run the command line in this process."""
    return entry.run(list(arguments))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return a function that makes `llama-gguf status` do something else."""

    def replace(action: Callable[[], object]) -> None:
        module = type(sys)("status")
        module.status = click.command()(action)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "llama_gguf.cli.commands.status", module)

    return replace


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"llama-gguf, version {__version__}"


def test_help_lists_the_commands_and_hides_gen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(summary in " ".join(out.split()) for name, summary in entry.COMMANDS.items() if name != "gen")
    assert "Regenerate" not in out


@pytest.mark.parametrize("name", sorted(entry.COMMANDS))
def test_every_command_is_there_and_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = getattr(importlib.import_module(f"llama_gguf.cli.commands.{name}"), name)
    assert isinstance(found, click.Command)
    assert run(name, "--help") == 0
    assert "Usage: llama-gguf" in capsys.readouterr().out


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from llama_gguf.cli.__main__ import run; run(['--help']); "
        "ours = {m for m in sys.modules if m.startswith('llama_gguf.')}; "
        "print(sorted(ours - {'llama_gguf.cli', 'llama_gguf.cli.__main__', 'llama_gguf.errors'}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_unknown_command_and_option_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chekc") == ExitCode.USAGE
    assert "Did you mean 'check'?" in capsys.readouterr().err
    assert run("zzz") == ExitCode.USAGE
    assert "Did you mean" not in capsys.readouterr().err
    assert run("check", "--nonsense") == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("bad", hint="fix it"), 78),
        (LaunchError("down", hint="fix it"), 69),
        (ModelError("gone", code="x", hint="fix it", permanent=False), 69),
        (ModelError("never", code="x", hint="fix it"), 78),
    ],
)
def test_deliberate_error(
    error: Exception, code: int, command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    command(fail)
    assert run("status") == code
    assert capsys.readouterr().err == f"error: {error}\nhint: fix it\n"


def test_invalid_configuration_is_explained(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise InvalidConfigError([Problem("x", "wrong", source="f", line=1, column=1)], text="a: b")

    command(fail)
    assert run("status") == ExitCode.CONFIG
    err = capsys.readouterr().err
    assert err == "f:1:1: error[x]: wrong\n    1 | a: b\n      | ^\n1 error\n"


def test_problems_without_a_text_are_explained_too(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ConfigError("x", problems=(Problem("y", "wrong"),))

    command(fail)
    assert run("status") == ExitCode.CONFIG
    assert capsys.readouterr().err.startswith("configuration: error[y]: wrong\n")


def test_defect_is_one_sentence_unless_asked(
    command: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError("oops")

    command(fail)
    assert run("status") == ExitCode.INTERNAL
    err = capsys.readouterr().err
    assert "internal error in llama-gguf: RuntimeError: oops" in err
    assert "Traceback" not in err
    monkeypatch.setenv(entry.TRACEBACK_VARIABLE, "1")
    assert run("status") == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(command: Callable[[Callable[[], object]], None]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    command(fail)
    assert run("status") == entry.INTERRUPTED


def test_command_that_is_none_is_a_defect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = type(sys)("status")
    module.status = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_gguf.cli.commands.status", module)
    assert run("status") == ExitCode.INTERNAL
    assert "is not a click command" in capsys.readouterr().err


def test_exit_code_of_a_command_is_kept(command: Callable[[Callable[[], object]], None]) -> None:
    command(lambda: 7)
    assert run("status") == 7
    command(lambda: None)
    assert run("status") == 0


def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`llama-gguf config env | head -1` ends quietly."""
    script = f"{sys.executable} -P -m llama_gguf.cli config env 2>{tmp_path}/err | head -1"
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "err").read_text() == ""
