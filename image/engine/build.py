"""Build the engine: the llama-cpp-python wheel, native llama-server included, with the flags of image/variants.yaml.

    python image/engine/build.py --variant native --install-into .venv
    python image/engine/build.py --variant cpu --print-path

Wheels are cached in the user's cache directory by version, variant and a hash of all inputs, so a machine compiles each
once. A cached wheel has been proven on this machine's CPU (proof.py); an engine for this machine alone that fails is
built again without the instructions that failed. stdout has only the result (key or path); progress goes to stderr. Two
builds of the same key wait for each other; the wheel is moved into the cache atomically.
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
    """One build: its inputs, its cache key and its location."""

    recipes: recipe.Recipes
    variant: recipe.Variant
    version: str
    arguments: tuple[str, ...]
    key: str
    cache: Path
    machine: recipe.Machine

    @property
    def folder(self) -> Path:
        """The folder of the finished wheel."""
        return self.cache / self.key

    @property
    def toolkits(self) -> Path:
        """The folder of CUDA toolkits, beside the engines."""
        return self.cache.parent / "toolkits"

    @property
    def sources(self) -> Path:
        """The folder of source archives, beside the engines."""
        return self.cache.parent / "sources"

    def wheel(self) -> Path | None:
        """Return the finished wheel if there is one."""
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
    """Return the plan for building variant `name` on this machine."""
    recipes = recipe.load()
    variant = recipes.variant(name)
    arguments = recipe.cmake_arguments(variant, architectures=architectures)
    machine = this_machine()
    key = recipe.current_key(recipes, variant, arguments, machine)
    return Plan(recipes, variant, recipe.pinned_version(), arguments, key, cache, machine)


def compile_engine(plan: Plan, without: tuple[Fallback, ...]) -> Path:
    """Compile and slim the wheel without the features in `without`; return it, below the build folder."""
    log = plan.cache / f"{plan.key}.log"
    log.unlink(missing_ok=True)
    cmake = list(plan.arguments)
    if plan.variant.toolkit:
        toolkit = plan.recipes.toolkits[plan.variant.toolkit]
        cmake += cuda_toolkit.assemble(toolkit, plan.toolkits).cmake_arguments()
    cmake += [argument for feature in without for argument in feature.cmake]
    flags = tuple(dict.fromkeys(flag for feature in without for flag in feature.compiler_flags))
    job = compiler.CompileJob(f"engine {plan.variant.name}", tuple(cmake), flags, plan.recipes.build_constraints)
    say(f"building llama.cpp (llama-cpp-python {plan.version}, variant {plan.variant.name}); log: {log}")
    folder = plan.cache / f"{plan.key}.build"
    built = compiler.compile_wheel(job, folder, plan.sources, log)
    finished = folder / built.name
    wheel.slim(built, finished)
    return finished


def build_proven(plan: Plan) -> Path:
    """Compile, prove on this machine, and move the wheel into the cache. Raises BuildError.

    An engine for this CPU alone is built again without what failed; one for every machine must pass.
    """
    plan.cache.mkdir(parents=True, exist_ok=True)
    if plan.folder.exists():  # without a wheel, or with one that failed the proof
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
            say(f"building again without {feature.name}; this engine is slower than one that uses it")
            without += (feature,)
        with tempfile.TemporaryDirectory(prefix=f"{plan.key}.", dir=plan.cache) as scratch:
            out = Path(scratch, "out")
            out.mkdir()
            finished.rename(out / finished.name)
            proof_record.write(out, proven, without=tuple(feature.name for feature in without))
            out.rename(plan.folder)
    finally:
        shutil.rmtree(plan.cache / f"{plan.key}.build", ignore_errors=True)
    return checked_wheel(plan)


def checked_wheel(plan: Plan) -> Path:
    """Return the wheel in the cache. Raises BuildError where it is missing."""
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
        if not proof_record.is_proven(
            plan.folder, plan.machine
        ):  # built on another machine, or proven by an older proof
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
    """Install the wheel into `venv`; idempotent."""
    marker = venv / MARKER
    site = next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)
    if site is None:
        raise BuildError(f"{venv} is no virtual environment; create one with: python3 -m venv {venv}")
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
    say(f"engine {plan.key} is installed in {venv}")


def disk_problem(error: OSError) -> str:
    """Return what went wrong on the disk, and what to do about it."""
    what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    if error.errno in _FULL:
        return f"{what}; engines are built in the user's cache: free some space, or set XDG_CACHE_HOME to a larger disk"
    return f"{what}; engines are built in the user's cache: make it writable, or set XDG_CACHE_HOME to one that is"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="image/engine/build.py", description="Build llama-server, or reuse a cached build."
    )
    parser.add_argument("--variant", required=True, help="a variant of image/variants.yaml: native, cpu, cuda, …")
    parser.add_argument("--cache", type=Path, help="folder of finished builds (default: in the user's cache directory)")
    parser.add_argument("--cuda-architectures", help="override the list, e.g. `89-real` for one kind of GPU")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--print-key", action="store_true", help="print the cache key and build nothing")
    action.add_argument(
        "--print-path", action="store_true", help="print the wheel's path; build it if it is not cached"
    )
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
        say("interrupted")
        return 130
    return 0


def handle_like_sigint() -> None:
    """Handle SIGTERM and SIGHUP like SIGINT, so that the compilers, in a session of their own, are stopped too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    handle_like_sigint()
    sys.exit(main())
