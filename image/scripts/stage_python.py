"""Create the image's Python environment: the locked packages, without unused files, byte-compiled.

    python3 image/scripts/stage_python.py --lock image/requirements.lock --out /opt/llama-gguf/venv
    python3 image/scripts/stage_python.py --compile-only DIR

Uses only the standard library and the builder's pip. Needs binutils.
"""

from __future__ import annotations

import argparse
import compileall
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

SOURCE_SUFFIXES = (".pyx", ".pxd", ".pxi", ".c", ".h", ".cpp", ".pyi", ".hash")
"""Sources of extension modules and stubs for type checkers."""

PRUNED = (
    "supervisor/tests",
    "supervisor/ui",  # the web interface, which is disabled
    "fsspec/tests",
    "huggingface_hub/cli",  # `hf`, a program of its own
    "huggingface_hub/templates",
    "pydantic/v1",
    "pydantic/mypy.py",
    "multidict/_testcapi*.so",
)
"""Paths (globs) below site-packages that we do not import."""

KEPT_LEXERS = ("__init__.py", "_mapping.py", "special.py", "python.py", "_python_builtins.py", "data.py")
"""rich uses pygments' 260 lexers only to show code; these cover YAML, JSON and tracebacks."""

UNCOMPILED = re.compile(r"/(pygments|huggingface_hub|fsspec|redis)/")
"""Large packages that are imported rarely or in part: compiling them would cost 12 MB and save 0.1 s."""


BUILD_CERTIFICATES = Path("/run/secrets/pip-cert")
"""CA certificates of the building host, where PyPI is behind a TLS proxy."""


def pruned_paths(site: Path) -> list[Path]:
    """Return what to delete below `site`."""
    paths = [path for pattern in PRUNED for path in site.glob(pattern)]
    paths += [path for path in (site / "pygments/lexers").glob("*") if path.name not in KEPT_LEXERS]
    paths += [path for path in site.rglob("*") if path.suffix in SOURCE_SUFFIXES and path.is_file()]
    return paths + list(site.rglob("__pycache__"))


def prune(paths: Iterable[Path]) -> None:
    """Delete `paths`; some can be below others."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def strip_libraries(site: Path) -> None:
    """Strip debug information from the extension modules, most of their size."""
    libraries = [str(path) for path in site.rglob("*.so*") if path.is_file()]
    subprocess.run(["/usr/bin/strip", "--strip-unneeded", *libraries], check=True)


def compile_tree(tree: Path, skip: re.Pattern[str] | None = None) -> None:
    """Byte-compile `tree`. Files in an image never change, so the import does not check the source."""
    done = compileall.compile_dir(
        tree, quiet=1, rx=skip, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, legacy=False
    )
    if not done:
        raise SystemExit(f"error: {tree} does not compile")


def install(lock: Path, out: Path) -> Path:
    """Create the virtual environment at `out` with the locked packages and no pip; return its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(out)], check=True)
    python = str(out / "bin/python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-cache-dir", "--no-compile"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore", "--no-deps", "--require-hashes"]
    if BUILD_CERTIFICATES.exists():
        command += ["--cert", str(BUILD_CERTIFICATES)]
    subprocess.run([*command, "--only-binary", ":all:", "-r", str(lock)], check=True)
    for script in (out / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()  # activate scripts and the packages' own programs are not used
    return next(out.glob("lib/python3*/site-packages"))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="image/scripts/stage_python.py", description="Create the image's environment."
    )
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--path", help="folder to add to the environment's import path")
    parser.add_argument("--compile-only", type=Path, metavar="DIR", help="byte-compile DIR and do nothing else")
    options = parser.parse_args(argv)
    if options.compile_only:
        compile_tree(options.compile_only)
        return 0
    if not (options.lock and options.out):
        parser.error("--lock and --out are required")
    site = install(options.lock, options.out)
    if options.path:
        (site / "app.pth").write_text(options.path + "\n", encoding="utf-8")
    strip_libraries(site)
    prune(pruned_paths(site))
    compile_tree(site, UNCOMPILED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
