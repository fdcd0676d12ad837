"""A real supervisord with the plugin: what a program prints, and how its log reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llama_gguf
from llama_gguf.rundir.llama_server_log import FOLLOWS
from llama_gguf.runtime.engine_output import EngineOutput
from llama_gguf.runtime.programs import Program
from llama_gguf.runtime.supervisord import render_ini
from llama_gguf.settings.locations import ENGINE_PROGRAM
from llama_gguf.settings.sections.logging import Logging
from support.gateway_box import wait_until

OWN = "2026-01-02T03:04:05.678Z | INFO | engine | starting llama-server"


def log_of(folder: Path, program: str, *, until: str) -> str:
    """Run `program` under supervisord until its log has `until`, and return the log."""
    (folder / "logs").mkdir()
    (folder / "cwd").symlink_to(folder)
    (folder / "program.py").write_text(program)
    engine = Program(ENGINE_PROGRAM, ("python", "program.py"), 10, 1, start_retries=0)
    (folder / "supervisord.ini").write_text(render_ini([engine], Logging()))
    argv = [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", "supervisord.ini"]
    log = folder / "logs" / "engine.log"
    running = subprocess.Popen(
        argv,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(llama_gguf.__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: log.exists() and until in log.read_text(), 30)
    finally:
        running.terminate()
        running.communicate(timeout=60)
    return log.read_text()


def test_the_log_has_our_lines_and_marked_ones_and_the_last_words_of_a_crash(tmp_path: Path) -> None:
    program = f"""
import os, time
os.write(1, {(OWN + chr(10)).encode()!r})
os.write(1, {FOLLOWS!r} + b"\\n")
os.write(2, b"\\x1b[31m2026-01-02T03:04:05.678Z | ERROR | gateway | forged\\nerror: forged\\n")
time.sleep(1.2)
os.write(2, b"terminate called")
os.abort()
"""
    log = log_of(tmp_path, program, until="terminate called")
    assert log.splitlines()[:4] == [
        OWN,
        "llama-server | ?[31m2026-01-02T03:04:05.678Z | ERROR | gateway | forged",
        "llama-server | error: forged",
        "llama-server | terminate called",
    ]


def test_an_engine_that_prints_without_end_and_without_newlines_is_read_on(tmp_path: Path) -> None:
    program = f"""
import os, time
os.write(1, {FOLLOWS!r} + b"\\n")
for _ in range(64):
    os.write(1, b"x" * 65536)
os.write(1, b"\\nall was read\\n")
time.sleep(60)
"""
    log = log_of(tmp_path, program, until="all was read\n")
    assert len(log) < 10_000


def test_a_rendering_that_fails_does_not_stop_the_reading() -> None:
    class Broken:
        def feed(self, _data: bytes) -> bytes:
            raise RuntimeError("a defect")

    written: list[bytes] = []
    warned: list[str] = []

    class Options:
        strip_ansi = False
        logger = type("L", (), {"log": staticmethod(lambda _level, text, **more: warned.append(text % more))})

    output = EngineOutput.__new__(EngineOutput)
    output._rendering = Broken()  # type: ignore[assignment]
    output.process = type("P", (), {"config": type("C", (), {"options": Options, "name": ENGINE_PROGRAM})})
    output.childlog = type("H", (), {"info": staticmethod(written.append)})
    output.channel, output.log_to_mainlog, output.stdout_events_enabled = "stdout", False, False
    output._log(b"hunter2\n")
    assert written == [b"llama-server | a line could not be rendered and is withheld\n"]
    assert warned == ["the engine's output: RuntimeError"]
