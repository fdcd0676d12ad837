"""Unpack what an image needs from the engine's wheel: llama-server, its backends, and the libraries they load.

    python image/scripts/stage_engine.py --variant cpu --wheel FILE --out DIR [--cuda-libraries DIR]

Every library is stored under its soname, and stripped. Writes DIR/engine/{bin,lib}, DIR/engine/engine.json and
DIR/cuda/lib. A NEEDED library that is neither in the wheel nor in the base image is an error. Runs in the builder
stage; needs binutils and patchelf.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import cuda_toolkit, recipe

PROGRAM = "llama-server"
SYSTEM_LIBRARIES = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|gomp)\.so\.\d+)")
"""Libraries of the runtime base (libgomp is installed there)."""

RUNPATH = "$ORIGIN/../lib:$ORIGIN"
"""The search path of every file: `lib`, relative to the engine's folder."""

DRIVER_LIBRARIES = frozenset({"libcuda.so.1"})
"""Libraries that the host's NVIDIA driver mounts into the container."""


class StageError(Exception):
    """The wheel does not contain what the image needs."""


def parse_needed(readelf: str) -> tuple[str, ...]:
    """Return the sonames in the output of `readelf -d`."""
    return tuple(re.findall(r"\(NEEDED\)\s+Shared library: \[([^]]+)\]", readelf))


def closure(
    roots: Iterable[str],
    needed: Callable[[str], Iterable[str]],
    available: Callable[[str], bool],
    given: frozenset[str],
) -> tuple[set[str], set[str]]:
    """Return the libraries that `roots` load, directly or indirectly: those `available`, and the missing ones."""
    found: set[str] = set()
    missing: set[str] = set()
    waiting = list(roots)
    while waiting:
        for name in needed(waiting.pop()):
            if name in found or name in given or SYSTEM_LIBRARIES.fullmatch(name):
                continue
            if available(name):
                found.add(name)
                waiting.append(name)
            else:
                missing.add(name)
    return found, missing


def _readelf(path: Path) -> tuple[str, ...]:
    done = subprocess.run(["/usr/bin/readelf", "-d", str(path)], capture_output=True, text=True, check=True)
    return parse_needed(done.stdout)


def stage(wheel: Path, engine: Path, given: frozenset[str]) -> list[str]:
    """Unpack what is needed of `wheel` into `engine`; return the names kept. Raises StageError."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(("bin/", "lib/"))])
        source_bin, source_lib = Path(scratch, "bin"), Path(scratch, "lib")
        roots = [PROGRAM, *sorted(path.name for path in source_bin.glob("lib*.so"))]

        def locate(name: str) -> Path:
            return source_bin / name if (source_bin / name).exists() else source_lib / name

        libraries, missing = closure(
            roots, lambda name: _readelf(locate(name)), lambda name: locate(name).exists(), given
        )
        if missing:
            raise StageError(
                f"{wheel.name} needs {', '.join(sorted(missing))}, which neither it nor the base image contains"
            )
        kept = []
        for name in (*roots, *sorted(libraries)):
            folder = "bin" if name in roots else "lib"
            target = engine / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(locate(name), target)
            target.chmod(0o755)
            subprocess.run(["/usr/bin/strip", "--strip-unneeded", str(target)], check=True)
            # llama-cpp-python's install rules set another RPATH for the CUDA backend.
            subprocess.run(["/usr/bin/patchelf", "--set-rpath", RUNPATH, str(target)], check=True)
            kept.append(f"{folder}/{name}")
    return kept


def describe(program: Path, version: str, arguments: tuple[str, ...], patches: Path) -> dict[str, object]:
    """Return the engine's entry in /versions.json, with the build that the program reports.

    The file `patches` edits llama.cpp's source, so its hash is in there too. The commit that the program reports is
    llama-cpp-python's, whose sdist contains llama.cpp without its git history.
    """
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"^version:\s*(.+?)\s*$", done.stdout + done.stderr, re.MULTILINE)
    if not match:
        raise StageError(f"{program} --version prints no version")
    return {
        "package": f"llama-cpp-python=={version}",
        "llama_cpp": match[1],
        "patched_by": {"file": patches.name, "sha256": hashlib.sha256(patches.read_bytes()).hexdigest()},
        "flags": list(arguments),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="image/scripts/stage_engine.py", description="Unpack the engine for an image."
    )
    parser.add_argument("--variant", required=True)
    parser.add_argument("--wheel", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--cuda-libraries", type=Path, help="folder of the CUDA runtime libraries")
    parser.add_argument("--cuda-architectures")
    options = parser.parse_args(argv)
    recipes = recipe.load()
    variant = recipes.variant(options.variant)
    runtime_libraries = recipes.runtime_libraries(variant)
    architectures = tuple(options.cuda_architectures.split(";")) if options.cuda_architectures else None
    try:
        engine = options.out / "engine"
        kept = stage(options.wheel, engine, DRIVER_LIBRARIES | frozenset(runtime_libraries))
        arguments = recipe.cmake_arguments(variant, architectures=architectures)
        cuda = options.out / "cuda/lib"
        cuda.mkdir(parents=True, exist_ok=True)
        if runtime_libraries:
            cuda_toolkit.copy_runtime_libraries(options.cuda_libraries, runtime_libraries, cuda)
        facts = describe(engine / "bin" / PROGRAM, recipe.pinned_version(), arguments, recipe.PATCHES_FILE)
        (engine / "engine.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except StageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{len(kept)} files: {' '.join(kept)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
