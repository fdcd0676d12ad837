"""The engine's builder: cache, lock, progress, and what it says when something is missing. No compiler runs here."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image.engine import build, progress, recipe


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("  [12/511] /usr/bin/g++ -DX [1/2]", (12, 511)),
        ("[ 42%] Building CXX object", (42, 100)),
        ("[100%] Built target", (100, 100)),
        ("-- Configuring [3/4]", None),
        ("", None),
    ],
)
def test_steps_are_read_from_ninja_and_make(line: str, step: tuple[int, int] | None) -> None:
    assert progress.parse_step(line) == step


def test_without_a_terminal_there_is_a_line_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    with progress.LineReporter("engine", out.write, clock) as report:
        clock.now += 1
        report.tick()
        report.step(50, 200)
        clock.now += 59
        report.tick()
        clock.now += 4
        report.tick()
    assert out.getvalue().splitlines() == [
        "engine: preparing, 0:00 elapsed",
        "engine: 50/200 (25 %), 1:00 elapsed, about 3:00 left",
        "engine: done after 1:04",
    ]


def test_an_error_is_not_called_done() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), progress.LineReporter("engine", out.write, Clock()):
        raise RuntimeError
    assert out.getvalue().endswith("engine: stopped after 0:00\n")


def plan(tmp_path: Path, variant: str = "cpu") -> build.Plan:
    return build.make_plan(variant, tmp_path / "cache/engine")


def put_wheel(made: build.Plan) -> Path:
    made.folder.mkdir(parents=True)
    wheel = made.folder / "llama_cpp_python-0.0.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    return wheel


def test_a_cached_wheel_is_taken_without_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    wheel = put_wheel(made)
    monkeypatch.setenv("PATH", "/nowhere")
    assert build.ensure_wheel(made) == wheel


def test_command_line_prints_key_flags_and_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ["--variant", "cpu", "--cache", str(tmp_path / "cache/engine")]
    wheel = put_wheel(plan(tmp_path))
    assert build.main([*cache, "--print-path"]) == 0
    assert build.main([*cache, "--print-key"]) == 0
    assert build.main([*cache, "--print-flags"]) == 0
    path, key, *flags = capsys.readouterr().out.splitlines()
    assert (path, key) == (str(wheel), plan(tmp_path).key)
    assert "-DGGML_BACKEND_DL=ON" in flags


def test_a_missing_compiler_is_told_with_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    assert build.main(["--variant", "cpu", "--cache", str(tmp_path)]) == 1
    assert "apt-get install build-essential" in capsys.readouterr().err


def test_a_failed_build_leaves_the_log_and_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan(tmp_path)
    monkeypatch.setattr(sys, "executable", str(script(tmp_path, "echo '[1/2] a'; echo 'fatal: no luck'; exit 3")))
    with pytest.raises(build.BuildError, match=r"pip exited 3[\s\S]*no luck"):
        build.ensure_wheel(made)
    assert made.wheel() is None
    assert "fatal: no luck" in (made.cache / f"{made.key}.log").read_text(encoding="utf-8")
    assert "log:" in capsys.readouterr().err
    assert [path.name for path in made.cache.iterdir() if path.is_dir()] == []


def test_a_build_appears_whole_and_gets_only_our_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    # Stands in for `python -m pip wheel … -w OUT`: notes its environment and writes a wheel.
    body = (
        'for last; do :; done; mkdir -p "$last"; env > "$last/env.txt"; touch "$last/a.whl"; '
        'cp "${CMAKE_ARGS##*=}" "$last/"'
    )
    monkeypatch.setattr(sys, "executable", str(script(tmp_path, body)))
    monkeypatch.setenv("CMAKE_GENERATOR", "Unix Makefiles")
    monkeypatch.setenv("SKBUILD_VERBOSE", "1")
    wheel = build.ensure_wheel(made)
    assert wheel == made.folder / "a.whl"
    env = dict(line.split("=", 1) for line in (made.folder / "env.txt").read_text().splitlines() if "=" in line)
    *arguments, include = env["CMAKE_ARGS"].split(" ")
    assert tuple(arguments) == made.arguments
    assert include.startswith("-DCMAKE_PROJECT_llama_cpp_INCLUDE=/")
    assert (made.folder / "patches.cmake").read_bytes() == recipe.PATCHES_FILE.read_bytes()
    assert "CMAKE_GENERATOR" not in env
    assert "SKBUILD_VERBOSE" not in env
    assert int(env["CMAKE_BUILD_PARALLEL_LEVEL"]) == build.job_count()


def script(folder: Path, body: str) -> Path:
    path = folder / "pip-stand-in"
    path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_stopping_stops_the_compilers_too(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from image.engine import build\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what a shell starts with `&` ignores it
        "build.run_with_progress(['/bin/bash', '-c', 'echo $$ > ' + sys.argv[2] + '; sleep 60 & wait'], {}, "
        "Path(sys.argv[3]), 'x')\n"
    )
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(recipe.ROOT), str(pid_file), str(log)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    group = int(pid_file.read_text())
    child.send_signal(signal.SIGINT)
    child.wait(20)
    deadline = time.monotonic() + 10
    while _alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(group)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _hold(path: str, ready: multiprocessing.synchronize.Event, seconds: float) -> None:
    with build.locked(Path(path)):
        ready.set()
        time.sleep(seconds)


def test_two_builders_wait_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path / "x.lock"), ready, 0.5))
    holder.start()
    assert ready.wait(30)
    started = time.monotonic()
    with build.locked(tmp_path / "x.lock"):
        waited = time.monotonic() - started
    holder.join(30)
    assert waited > 0.1
    assert "another process builds the same engine" in capsys.readouterr().err


def test_install_is_idempotent_and_sets_execute_bits(tmp_path: Path) -> None:
    venv, made = tmp_path / "venv", plan(tmp_path)
    put_wheel(made)
    site = venv / "lib/python3.11/site-packages"
    (site / "bin").mkdir(parents=True)
    (venv / "bin").mkdir()
    calls = tmp_path / "calls"
    python = script(
        tmp_path, f"echo called >> {calls}; touch {site}/bin/llama-server; chmod 644 {site}/bin/llama-server"
    )
    (venv / "bin/python").symlink_to(python)
    build.install(made, venv)
    build.install(made, venv)
    assert calls.read_text().splitlines() == ["called"]
    assert stat.S_IMODE((site / "bin/llama-server").stat().st_mode) == 0o755


def test_install_into_something_else_than_an_environment(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match="no virtual environment"):
        build.install(plan(tmp_path), tmp_path)


def test_cache_folder_follows_xdg() -> None:
    assert build.default_cache({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/llama-gguf/engine")
    assert build.default_cache({"HOME": "/h"}) == Path("/h/.cache/llama-gguf/engine")
