"""Build the engine: the llama-cpp-python wheel, native llama-server included, with the flags of image/variants.yaml.

    python image/engine/build.py --variant native --install-into .venv
    python image/engine/build.py --variant cpu --print-path

A wheel is kept in the user's cache under version, variant and a hash of everything that shapes it, so a machine
compiles each once. Standard output carries only what was asked for (key or path); progress goes to standard error.
Two builders of the same key wait for each other; the wheel appears in the cache whole or not at all.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import cuda_toolkit, progress, recipe

MARKER = ".llama-gguf-engine"
"""File in a virtual environment that names the build installed there."""

_BYTES_PER_JOB = 1_500_000_000  # what the fattest translation unit takes, with some room


class BuildError(Exception):
    """The engine could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One build, fully named: what will be made and where it will lie."""

    recipes: recipe.Recipes
    variant: recipe.Variant
    version: str
    arguments: tuple[str, ...]
    key: str
    cache: Path

    @property
    def folder(self) -> Path:
        """Where the finished wheel lies."""
        return self.cache / self.key

    @property
    def toolkits(self) -> Path:
        """Where CUDA toolkits lie, beside the engines."""
        return self.cache.parent / "toolkits"

    def wheel(self) -> Path | None:
        """Return the finished wheel if it is there."""
        return next(iter(sorted(self.folder.glob("*.whl"))), None)


def default_cache(env: Mapping[str, str]) -> Path:
    """Return the folder of engine builds in the user's cache."""
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/root")) / ".cache")
    return Path(base) / "llama-gguf/engine"


def this_machine() -> recipe.Machine:
    """Describe the machine this runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else platform.processor()
    return recipe.Machine.parse(platform.machine(), "".join(platform.libc_ver()), text)


def make_plan(name: str, cache: Path, architectures: tuple[str, ...] | None = None) -> Plan:
    """Work out what building variant `name` on this machine means."""
    recipes = recipe.load()
    variant = recipes.variant(name)
    arguments = recipe.cmake_arguments(variant, architectures=architectures)
    key = recipe.current_key(recipes, variant, arguments, this_machine())
    return Plan(recipes, variant, recipe.pinned_version(), arguments, key, cache)


def job_count() -> int:
    """Return how many compilers fit this machine's processors and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _BYTES_PER_JOB))


def check_compiler(env: Mapping[str, str]) -> None:
    """Raise BuildError when there is no C++ compiler; CMake and Ninja come from PyPI when the system has none."""
    for variable, program in (("CC", "cc"), ("CXX", "c++")):
        name = (env.get(variable) or program).split()[0]
        if shutil.which(name) is None:
            raise BuildError(
                f"no {'C++' if variable == 'CXX' else 'C'} compiler ({name}) to build llama-server with; "
                "on Debian or Ubuntu: sudo apt-get install build-essential"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, waiting (and saying so) while another builder has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds the same engine; waiting for it ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def run_with_progress(command: list[str], env: Mapping[str, str], log: Path, title: str) -> int:
    """Run `command` with its output in `log`, showing the steps it tells; stop it whole when we are stopped."""
    with (
        log.open("wb") as sink,
        progress.reporter(title) as report,
        subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
        selectors.DefaultSelector() as selector,
    ):
        output = child.stdout
        if output is None:
            raise BuildError("the build's output was not captured")
        selector.register(output, selectors.EVENT_READ)
        rest = b""
        try:
            while True:
                if selector.select(timeout=1.0):
                    chunk = os.read(output.fileno(), 65_536)
                    if not chunk:
                        return child.wait()
                    sink.write(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if step := progress.parse_step(line[:200].decode("utf-8", "replace")):
                            report.step(*step)
                report.tick()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise


def pip_has_build_constraints() -> bool:
    """Return whether this Python's pip takes constraints for build environments apart."""
    major, minor = metadata.version("pip").split(".")[:2]
    return (int(major), int(minor)) >= (25, 3)


def build_environment(plan: Plan, toolkit_arguments: tuple[str, ...], scratch: Path) -> dict[str, str]:
    """Return the environment for pip: our CMake arguments and nothing the user's own would add to them.

    Writes into `scratch` what they refer to, because the path of our own tree may hold blanks.
    """
    constraints = scratch / "constraints.txt"
    constraints.write_text("\n".join(plan.recipes.build_constraints) + "\n", encoding="utf-8")
    patches = Path(shutil.copy(recipe.PATCHES_FILE, scratch))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SKBUILD_", "CMAKE_"))}
    arguments = (*plan.arguments, f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={patches}", *toolkit_arguments)
    if any(" " in argument for argument in arguments):
        raise BuildError("a CMake argument holds a blank, which CMAKE_ARGS cannot carry; use a cache path without one")
    env["CMAKE_ARGS"] = " ".join(arguments)
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(job_count())
    # The variable's name changed with pip 25.3; each pip ignores the other's.
    env["PIP_BUILD_CONSTRAINT" if pip_has_build_constraints() else "PIP_CONSTRAINT"] = str(constraints)
    return env


def compile_wheel(plan: Plan) -> Path:
    """Build the wheel in a scratch folder and move it into the cache. Raises BuildError, keeping the log."""
    check_compiler(os.environ)
    plan.cache.mkdir(parents=True, exist_ok=True)
    log = plan.cache / f"{plan.key}.log"
    toolkit_arguments: tuple[str, ...] = ()
    if plan.variant.toolkit:
        toolkit = plan.recipes.toolkits[plan.variant.toolkit]
        toolkit_arguments = cuda_toolkit.assemble(toolkit, plan.toolkits).cmake_arguments()
    with tempfile.TemporaryDirectory(prefix=f"{plan.key}.", dir=plan.cache) as scratch:
        out = Path(scratch, "out")
        command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-cache-dir", "--no-deps", "--require-hashes"]
        command += ["--no-binary", "llama-cpp-python", "-r", str(recipe.ENGINE_LOCK), "-w", str(out)]
        say(f"building llama.cpp (llama-cpp-python {plan.version}, variant {plan.variant.name}); log: {log}")
        env = build_environment(plan, toolkit_arguments, Path(scratch))
        code = run_with_progress(command, env, log, f"engine {plan.variant.name}")
        if code != 0:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
            raise BuildError(f"building the engine failed (pip exited {code}); the end of {log}:\n{tail}")
        out.rename(plan.folder)
    return store_check(plan)


def store_check(plan: Plan) -> Path:
    """Return the wheel in the cache, which must be there now."""
    wheel = plan.wheel()
    if wheel is None:
        raise BuildError(f"no wheel in {plan.folder}; remove that folder and build again")
    return wheel


def ensure_wheel(plan: Plan) -> Path:
    """Return the wheel of `plan`, building it unless the cache has it."""
    if wheel := plan.wheel():
        return wheel
    with locked(plan.cache / f"{plan.key}.lock"):
        return plan.wheel() or compile_wheel(plan)


def install(plan: Plan, venv: Path) -> None:
    """Put the wheel into `venv` and give its programs their execute bit, which pip does not; idempotent."""
    marker = venv / MARKER
    site = next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)
    if site is None:
        raise BuildError(f"{venv} is no virtual environment; make one with: python3 -m venv {venv}")
    server = site / "bin/llama-server"
    if os.access(server, os.X_OK) and marker.exists() and marker.read_text(encoding="utf-8") == plan.key:
        return
    wheel = ensure_wheel(plan)
    marker.unlink(missing_ok=True)
    command = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel)]
    if subprocess.run(command, check=False).returncode != 0:
        raise BuildError(f"pip could not install {wheel} into {venv}")
    for program in (site / "bin").iterdir():
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    marker.write_text(plan.key, encoding="utf-8")
    say(f"engine {plan.key} is in {venv}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="image/engine/build.py", description="Build llama-server, once.")
    parser.add_argument("--variant", required=True, help="a variant of image/variants.yaml: native, cpu, cuda, …")
    parser.add_argument("--cache", type=Path, help="folder of finished builds (default: in the user's cache)")
    parser.add_argument("--cuda-architectures", help="override the list, e.g. `89-real` for one kind of GPU")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--print-key", action="store_true", help="print the build's name and build nothing")
    action.add_argument("--print-path", action="store_true", help="print the wheel's path, building it if need be")
    action.add_argument("--print-flags", action="store_true", help="print the CMake arguments and build nothing")
    action.add_argument("--install-into", type=Path, metavar="VENV", help="install the wheel into this environment")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    options = parse_arguments(argv)
    architectures = tuple(options.cuda_architectures.split(";")) if options.cuda_architectures else None
    try:
        plan = make_plan(options.variant, (options.cache or default_cache(os.environ)).absolute(), architectures)
        if options.print_key:
            sys.stdout.write(plan.key + "\n")
        elif options.print_flags:
            sys.stdout.write("\n".join(plan.arguments) + "\n")
        elif options.install_into:
            install(plan, options.install_into.absolute())
        else:
            wheel = ensure_wheel(plan)
            sys.stdout.write(f"{wheel}\n" if options.print_path else "")
    except (BuildError, recipe.RecipeError, cuda_toolkit.ToolkitError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
