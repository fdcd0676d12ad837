"""The engine's builder: cache, lock, progress, and what it says when something is missing. No compiler runs here."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from image.engine import build, compiler, progress, proof, proof_record, recipe

from support import proof_server


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
    assert out.getvalue().endswith("engine: aborted after 0:00\n")


def plan(tmp_path: Path, variant: str = "cpu") -> build.Plan:
    return build.make_plan(variant, tmp_path / "cache/engine")


def put_wheel(made: build.Plan) -> Path:
    """Put a wheel into the cache that has been proven on this machine."""
    made.folder.mkdir(parents=True)
    wheel = made.folder / "llama_cpp_python-0.0.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    proof_record.write(made.folder, proof_record.Proof(made.machine.cpu, {}))
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
    with pytest.raises(compiler.BuildError, match=r"pip exited 3[\s\S]*no luck"):
        build.ensure_wheel(made)
    assert made.wheel() is None
    assert "fatal: no luck" in (made.cache / f"{made.key}.log").read_text(encoding="utf-8")
    assert "log:" in capsys.readouterr().err
    assert [path.name for path in made.cache.iterdir() if path.is_dir()] == []


@dataclass
class Pip:
    """Stands in for `python -m pip`: fetches a source that is pinned and builds a wheel with an engine in it.

    Engine number n has the knobs `engines[n]` of support.proof_server; `env` is what each build was given.
    """

    folder: Path
    engines: list[dict[str, Any]]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = f"llama_cpp_python-{recipe.pinned_version()}"
        source = self.folder / f"{name}.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo(f"{name}/CMakeLists.txt"), io.BytesIO(b""))
        lock = self.folder / "requirements.lock"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        lock.write_text(f"llama-cpp-python=={recipe.pinned_version()} --hash=sha256:{digest}\n", encoding="utf-8")
        monkeypatch.setattr(recipe, "ENGINE_LOCK", lock)
        for number, knobs in enumerate(self.engines):
            server = proof_server.write(self.folder / f"engine-{number}", **knobs)
            with zipfile.ZipFile(self.folder / f"{number}.whl", "w") as archive:
                archive.write(server, "bin/llama-server")
                archive.writestr("a.dist-info/RECORD", "")
        body = (
            f'here={self.folder}; args=("$@"); '
            'case "$3" in '
            f'download) cp {source} "${{args[-1]}}/";; '
            'wheel) n=$(ls "$here" | grep -c "env-"); env > "$here/env-$n"; printf "%s\\n" "$@" > "$here/argv-$n"; '
            'for ((i = 0; i < $#; i++)); do [ "${args[i]}" = -w ] && out=${args[i + 1]}; done; '
            'mkdir -p "$out"; cp "$here/$n.whl" "$out/a-1-py3-none-any.whl";; '
            "esac"
        )
        monkeypatch.setattr(sys, "executable", str(script(self.folder, body)))
        monkeypatch.setattr(proof, "variants", lambda _: ())
        few = {name: proof.load_expected()[name] for name in ("F16", "Q4_0")}
        monkeypatch.setattr(proof, "load_expected", lambda: few)

    def env(self, number: int) -> dict[str, str]:
        text = (self.folder / f"env-{number}").read_text(encoding="utf-8")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    @property
    def builds(self) -> int:
        return len(list(self.folder.glob("env-*")))


def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *engines: dict[str, Any]) -> Pip:
    folder = tmp_path / "pip"
    folder.mkdir()
    found = Pip(folder, list(engines))
    found.install(monkeypatch)
    return found


def test_a_build_appears_whole_and_gets_only_our_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path)
    used = pip(tmp_path, monkeypatch, {})
    for name in ("CMAKE_GENERATOR", "SKBUILD_VERBOSE", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.setenv(name, "-Dtheirs")
    wheel = build.ensure_wheel(made)
    assert wheel == made.folder / "a-1-py3-none-any.whl"
    env = used.env(0)
    *arguments, include = env["CMAKE_ARGS"].split(" ")
    assert tuple(arguments) == made.arguments
    assert include == f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={made.cache / made.key}.build/patches.cmake"
    assert "-Dtheirs" not in env.values()
    assert int(env["CMAKE_BUILD_PARALLEL_LEVEL"]) == compiler.job_count()
    assert sorted(path.name for path in made.folder.iterdir()) == ["a-1-py3-none-any.whl", "proof.json"]
    assert not (made.cache / f"{made.key}.build").exists()
    assert build.ensure_wheel(made) == wheel
    assert used.builds == 1


def test_what_lies_in_the_build_s_place_without_a_wheel_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a removal that was stopped half-way leaves it: minutes of compiling must not end in a name that is taken."""
    made = plan(tmp_path)
    used = pip(tmp_path, monkeypatch, {})
    made.folder.mkdir(parents=True)
    (made.folder / "proof.json").write_text("{}", encoding="utf-8")
    assert build.ensure_wheel(made) == made.wheel()
    assert sorted(path.name for path in made.folder.iterdir()) == ["a-1-py3-none-any.whl", "proof.json"]
    assert used.builds == 1


def test_source_and_build_lie_in_the_same_place_each_time_so_that_ccache_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = pip(tmp_path, monkeypatch, {}, {})
    made = plan(tmp_path)
    build.ensure_wheel(made)
    shutil.rmtree(made.folder)
    build.ensure_wheel(made)
    first, second = ((used.folder / f"argv-{number}").read_text(encoding="utf-8") for number in (0, 1))
    assert first == second
    assert f"build-dir={made.cache / made.key}.build/build" in first
    assert used.env(1)["CCACHE_BASEDIR"] == f"{made.cache / made.key}.build"


def test_a_source_that_is_not_the_pinned_one_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = pip(tmp_path, monkeypatch, {})
    made = plan(tmp_path)
    made.sources.mkdir(parents=True)
    archive = made.sources / f"llama_cpp_python-{recipe.pinned_version()}.tar.gz"
    archive.write_bytes(b"tampered with in the cache")
    build.ensure_wheel(made)
    assert archive.read_bytes() != b"tampered with in the cache"
    lock = used.folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:0000")[:-5], encoding="utf-8")
    shutil.rmtree(made.folder)
    with pytest.raises(compiler.BuildError, match="pip did not download"):
        build.ensure_wheel(made)
    assert used.builds == 1


AMX = {"faults": {"Q4_0": "dies"}, "mended_by": "--no-repack"}


def with_amx(made: build.Plan) -> build.Plan:
    return replace(made, machine=replace(made.machine, model="A Xeon", cpu_flags=("amx_tile", "avx", "avx512f")))


def test_an_engine_for_this_cpu_that_fails_is_built_once_more_without_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = with_amx(plan(tmp_path, "native"))
    used = pip(tmp_path, monkeypatch, AMX, {})
    wheel = build.ensure_wheel(made)
    said = capsys.readouterr().err
    assert "the engine built for this CPU (A Xeon) does not work on it" in said
    assert "weights of Q4_0: llama-server was terminated by SIGILL" in said
    assert "building again without AMX" in said
    assert used.builds == 2
    assert "CFLAGS" not in used.env(0)
    assert used.env(1)["CXXFLAGS"] == used.env(1)["CFLAGS"] == "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    assert json.loads((made.folder / "proof.json").read_text())["without"] == ["AMX"]
    assert build.ensure_wheel(made) == wheel
    assert used.builds == 2


def test_what_fails_again_loses_more_and_in_the_end_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_amx(plan(tmp_path, "native"))
    always = {"faults": {"F16": "dies at start", "Q4_0": 3.0}}
    used = pip(tmp_path, monkeypatch, AMX, *[always] * 3)
    with pytest.raises(
        compiler.BuildError, match=r"does not work on this machine \(A Xeon\)[\s\S]*F16: llama-server was terminated"
    ):
        build.ensure_wheel(made)
    assert [used.env(number).get("CFLAGS", "").split(" ")[-1] for number in range(used.builds)] == [
        "",
        "-mno-amx-bf16",
        "-mno-avx512f",
        "-mno-avx",
    ]
    assert made.wheel() is None
    assert [path.name for path in made.cache.iterdir() if path.is_dir()] == []


def test_an_image_s_engine_that_fails_is_not_built_weaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_amx(plan(tmp_path, "cpu"))
    used = pip(tmp_path, monkeypatch, AMX)
    with pytest.raises(compiler.BuildError, match="does not work on this machine"):
        build.ensure_wheel(made)
    assert used.builds == 1
    assert made.wheel() is None


def test_a_wheel_from_another_machine_is_proven_on_this_one_before_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan(tmp_path)
    used = pip(tmp_path, monkeypatch, {})
    build.ensure_wheel(made)
    here = with_amx(made)
    assert build.ensure_wheel(here) == made.wheel()
    assert used.builds == 1
    assert "proving the engine on this CPU: A Xeon" in capsys.readouterr().err
    with zipfile.ZipFile(made.wheel() or "", "w") as archive:
        archive.write(proof_server.write(tmp_path / "bad", **AMX), "bin/llama-server")
    elsewhere = replace(made, machine=replace(made.machine, model="Another Xeon"))
    with pytest.raises(compiler.BuildError, match=r"remove .* to build it again"):
        build.ensure_wheel(elsewhere)


def script(folder: Path, body: str) -> Path:
    path = folder / "pip-stand-in"
    path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_stops_the_compilers_too(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from image.engine import build, compiler\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what a shell starts with `&` ignores it
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # and what `nohup` starts ignores this
        "build.handle_like_sigint()\n"
        "compiler.run_with_progress(['/bin/bash', '-c', 'echo $$ > ' + sys.argv[2] + '; sleep 60 & wait'], {}, "
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
    child.send_signal(number)
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
    with compiler.locked(Path(path)):
        ready.set()
        time.sleep(seconds)


def test_two_builders_wait_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path / "x.lock"), ready, 0.5))
    holder.start()
    assert ready.wait(30)
    started = time.monotonic()
    with compiler.locked(tmp_path / "x.lock"):
        waited = time.monotonic() - started
    holder.join(30)
    assert waited > 0.1
    assert "another process builds the same" in capsys.readouterr().err


def test_install_is_idempotent(tmp_path: Path) -> None:
    venv, made = tmp_path / "venv", plan(tmp_path)
    put_wheel(made)
    site = venv / "lib/python3.11/site-packages"
    (site / "bin").mkdir(parents=True)
    (venv / "bin").mkdir()
    calls = tmp_path / "calls"
    python = script(
        tmp_path, f"echo called >> {calls}; touch {site}/bin/llama-server; chmod 755 {site}/bin/llama-server"
    )
    (venv / "bin/python").symlink_to(python)
    build.install(made, venv)
    build.install(made, venv)
    assert calls.read_text().splitlines() == ["called"]


def test_make_looks_each_time_because_a_disk_may_come_to_a_machine_with_another_cpu(tmp_path: Path) -> None:
    for name in ("bin/python", ".run.done", ".engine.done"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    make = shutil.which("make") or pytest.fail("no make: run `make test-tools`")
    command = [make, "--dry-run", "engine", f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=recipe.ROOT, capture_output=True, text=True, check=True)
    assert "build.py --variant native --install-into" in done.stdout


def test_install_into_something_else_than_an_environment(tmp_path: Path) -> None:
    with pytest.raises(compiler.BuildError, match="no virtual environment"):
        build.install(plan(tmp_path), tmp_path)


def test_a_cache_that_cannot_be_used_is_told_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    command = ["--variant", "cpu", "--print-path", "--cache"]
    assert build.main([*command, str(tmp_path / "file" / "engine")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/file/engine: Not a directory; ")
    assert "XDG_CACHE_HOME" in said

    def full(_: build.Plan) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build, "ensure_wheel", full)
    assert build.main([*command, str(tmp_path)]) == 1
    assert "a larger disk" in capsys.readouterr().err


def test_cache_folder_follows_xdg() -> None:
    assert build.default_cache({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/llama-gguf/engine")
    assert build.default_cache({"HOME": "/h"}) == Path("/h/.cache/llama-gguf/engine")
