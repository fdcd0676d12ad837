"""The ini text, read back by supervisord's own parser."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from llama_gguf.runtime.programs import Program, build_programs
from llama_gguf.runtime.supervisord import render_ini
from llama_gguf.settings import parse
from llama_gguf.settings.sections.logging import Logging

SETTINGS = parse({"model": {"path": "/m.gguf"}, "gateway": {"drain_seconds": 20}, "logging": {"backups": 2}})
PROGRAM = Program("a", ("python", "-m", "x"), 10, 5)


def parsed(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ServerOptions:
    (folder / "logs").mkdir(parents=True)
    (folder / "cwd").symlink_to("/")
    (folder / "supervisord.ini").write_text(text)
    monkeypatch.chdir(folder)
    options = ServerOptions()
    options.realize(["-n", "-c", "supervisord.ini"])
    return options


@pytest.mark.parametrize("name", ["plain", "a b;%x", "%(here)s ;c", "~root", "ä\U0001f600"])
def test_supervisord_reads_it_wherever_the_run_dir_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = render_ini(build_programs(SETTINGS, "python3"), SETTINGS.logging)
    folder = tmp_path / name
    options = parsed(text, folder, monkeypatch)
    assert options.logfile == str(folder / "supervisord.log")
    assert options.pidfile == str(folder / "supervisord.pid")
    (server,) = options.server_configs
    assert (server["file"], server["chmod"]) == (str(folder / "supervisord.sock"), 0o600)
    groups = {group.name: group for group in options.process_group_configs}
    assert [group.name for group in options.process_group_configs] == ["listener", "health", "engine", "gateway"]
    (gateway,) = groups["gateway"].process_configs
    assert gateway.command == "python3 -P -m llama_gguf.gateway"
    assert gateway.stdout_logfile == "logs/gateway.log"
    assert (gateway.stdout_logfile_maxbytes, gateway.stdout_logfile_backups) == (52_428_800, 2)
    assert gateway.directory == "cwd"
    assert gateway.redirect_stderr
    assert gateway.stopwaitsecs == 30
    (listener,) = groups["listener"].process_configs
    assert listener.stdout_logfile is None
    assert listener.stderr_logfile == "logs/listener.log"
    assert options.parse_warnings == []
    assert options.parse_criticals == []


def test_no_text_of_the_users_gets_in() -> None:
    odd = parse(
        {
            "model": {"path": "/with ;semicolon"},
            "paths": {"run_dir": "/run/%x", "data_dir": "/;"},
            "engine": {"extra_args": ["%(x)s"]},
        }
    )
    plain = parse({"model": {"path": "/m.gguf"}})
    assert render_ini(build_programs(odd, "python3"), odd.logging) == render_ini(
        build_programs(plain, "python3"), plain.logging
    )
    assert "%" not in render_ini(build_programs(odd, "python3"), odd.logging)


@pytest.mark.parametrize("word", ["a b", "x;y", "%s", "a'b", '"', "ü", "a\nb", "", "a,b", "$HOME", "*"])
def test_unsafe_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        render_ini([replace(PROGRAM, argv=("python", word))], Logging())


@pytest.mark.parametrize("name", ["", "a b", "a:b", "A", "a/b", "../x"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a program name"):
        render_ini([replace(PROGRAM, name=name)], Logging())


def test_what_another_program_asks_for_is_blanked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(PROGRAM, name="b", variables=("HF_*", "WORD"))
    text = render_ini([PROGRAM, other], Logging(), variables=["PATH", "HF_TOKEN", "HF_HOME", "WORD"])
    first, second = (group.process_configs[0] for group in parsed(text, tmp_path, monkeypatch).process_group_configs)
    assert first.environment == {"HF_HOME": "", "HF_TOKEN": "", "WORD": ""}
    assert second.environment == {}


def test_root_is_named_only_for_root() -> None:
    assert "user = root" in render_ini([PROGRAM], Logging(), as_root=True)
    assert "user" not in render_ini([PROGRAM], Logging())
    assert os.getuid() >= 0
