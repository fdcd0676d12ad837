"""Build the engine: the llama-cpp-python wheel, native llama-server included, with the flags of image/variants.yaml.

    python image/engine/build.py --variant native --install-into .venv
    python image/engine/build.py --variant cpu --print-path

A wheel is kept in the user's cache under version, variant and a hash of everything that shapes it, so a machine
compiles each once. What is in the cache has been proven on this machine's CPU (proof.py); an engine for one's own
machine that fails is built again without the instructions that failed. Standard output carries only what was asked for
(key or path); progress goes to standard error. Two builders of the same key wait for each other; the wheel appears in
the cache whole or not at all.
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import compiler, cuda_toolkit, fallback, proof_record, recipe, wheel
from image.engine.compiler import BuildError, locked, say
from image.engine.fallback import Fallback

MARKER = ".llama-gguf-engine"
"""File in a virtual environment that names the build installed there."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Plan:
    """One build, fully named: what will be made and where it will lie."""

    recipes: recipe.Recipes
    variant: recipe.Variant
    version: str
    arguments: tuple[str, ...]
    key: str
    cache: Path
    machine: recipe.Machine

    @property
    def folder(self) -> Path:
        """Where the finished wheel lies."""
        return self.cache / self.key

    @property
    def toolkits(self) -> Path:
        """Where CUDA toolkits lie, beside the engines."""
        return self.cache.parent / "toolkits"

    @property
    def sources(self) -> Path:
        """Where source archives lie, beside the engines."""
        return self.cache.parent / "sources"

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
    machine = this_machine()
    key = recipe.current_key(recipes, variant, arguments, machine)
    return Plan(recipes, variant, recipe.pinned_version(), arguments, key, cache, machine)


def compile_engine(plan: Plan, without: tuple[Fallback, ...]) -> Path:
    """Compile and slim the wheel, less the instructions in `without`; return it, below the build's own folder."""
    log = plan.cache / f"{plan.key}.log"
    log.unlink(missing_ok=True)
    cmake = list(plan.arguments)
    if plan.variant.toolkit:
        toolkit = plan.recipes.toolkits[plan.variant.toolkit]
        cmake += cuda_toolkit.assemble(toolkit, plan.toolkits).cmake_arguments()
    cmake += [argument for feature in without for argument in feature.cmake]
    flags = tuple(dict.fromkeys(flag for feature in without for flag in feature.compiler_flags))
    order = compiler.Order(f"engine {plan.variant.name}", tuple(cmake), flags, plan.recipes.build_constraints)
    say(f"building llama.cpp (llama-cpp-python {plan.version}, variant {plan.variant.name}); log: {log}")
    folder = plan.cache / f"{plan.key}.build"
    built = compiler.compile_wheel(order, folder, plan.sources, log)
    finished = folder / built.name
    wheel.slim(built, finished)
    return finished


def build_proven(plan: Plan) -> Path:
    """Compile, prove on this machine, and move the wheel into the cache. Raises BuildError.

    An engine for this CPU alone is built again without what failed; one for every machine has to be right.
    """
    plan.cache.mkdir(parents=True, exist_ok=True)
    if plan.folder.exists():  # without a wheel, or with one that is no good: in the way of what is made now
        shutil.rmtree(plan.folder)
    without: tuple[Fallback, ...] = ()
    try:
        while True:
            finished = compile_engine(plan, without)
            proven = proof_record.prove_wheel(finished, plan.machine, plan.cache)
            if not proven.failures:
                break
            feature = None
            if plan.variant.per_cpu:
                flags = plan.machine.cpu_flags
                works = proof_record.works_without_extra_buffers(finished, plan.cache)
                feature = fallback.choose(flags, without, works_without_extra_buffers=works)
            if feature is None:
                raise BuildError(
                    f"the engine was built but does not work on this machine ({plan.machine.model}):\n{proven.text()}"
                )
            say(f"the engine built for this CPU ({plan.machine.model}) does not work on it:\n{proven.text()}")
            say(f"building it once more without {feature.name}; it will be slower than this CPU could be")
            without += (feature,)
        with tempfile.TemporaryDirectory(prefix=f"{plan.key}.", dir=plan.cache) as scratch:
            out = Path(scratch, "out")
            out.mkdir()
            finished.rename(out / finished.name)
            proof_record.write(out, proven, without=tuple(feature.name for feature in without))
            out.rename(plan.folder)
    finally:
        shutil.rmtree(plan.cache / f"{plan.key}.build", ignore_errors=True)
    return store_check(plan)


def store_check(plan: Plan) -> Path:
    """Return the wheel in the cache, which must be there now."""
    wheel = plan.wheel()
    if wheel is None:
        raise BuildError(f"no wheel in {plan.folder}; remove that folder and build again")
    return wheel


def ensure_wheel(plan: Plan) -> Path:
    """Return the wheel of `plan`, proven on this machine, building it unless the cache has it. Raises BuildError."""
    if (found := plan.wheel()) and proof_record.is_proven(plan.folder, plan.machine):
        return found
    with locked(plan.cache / f"{plan.key}.lock"):
        found = plan.wheel()
        if found is None:
            return build_proven(plan)
        if not proof_record.is_proven(plan.folder, plan.machine):  # built elsewhere, or before the proof was as strict
            proven = proof_record.prove_wheel(found, plan.machine, plan.cache)
            if proven.failures:
                if plan.variant.per_cpu:
                    return build_proven(plan)
                raise BuildError(
                    f"{found} does not work on this machine ({plan.machine.model}):\n{proven.text()}"
                    f"remove {plan.folder} to build it again"
                )
            proof_record.write(plan.folder, proven)
        return found


def install(plan: Plan, venv: Path) -> None:
    """Put the wheel into `venv`; idempotent."""
    marker = venv / MARKER
    site = next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)
    if site is None:
        raise BuildError(f"{venv} is no virtual environment; make one with: python3 -m venv {venv}")
    server = site / "bin/llama-server"
    installed = f"{plan.key}\nproven by {proof_record.state()}\n"
    if os.access(server, os.X_OK) and marker.exists() and marker.read_text(encoding="utf-8") == installed:
        return
    found = ensure_wheel(plan)
    marker.unlink(missing_ok=True)
    command = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(found)]
    if subprocess.run(command, check=False).returncode != 0:
        raise BuildError(f"pip could not install {found} into {venv}")
    marker.write_text(installed, encoding="utf-8")
    say(f"engine {plan.key} is in {venv}")


def disk_problem(error: OSError) -> str:
    """Say what is wrong with the cache, or whatever else on the disk, and what to do about it."""
    what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if error.errno in _FULL:
        return f"{what}; engines are built in the user's cache: free some space, or set XDG_CACHE_HOME to a larger disk"
    return f"{what}; engines are built in the user's cache: make it writable, or set XDG_CACHE_HOME to one that is"


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
            found = ensure_wheel(plan)
            sys.stdout.write(f"{found}\n" if options.print_path else "")
    except (BuildError, recipe.RecipeError, cuda_toolkit.ToolkitError) as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {disk_problem(error)}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


def stop_like_ctrl_c() -> None:
    """Let a terminal that is closed, or a plain `kill`, stop the compilers too, which are in a session of their own."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    stop_like_ctrl_c()
    sys.exit(main())
