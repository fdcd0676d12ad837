"""Make the image's Python environment: the locked packages, stripped of what never runs there, and byte-compiled.

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
    "supervisor/ui",  # the web interface, which is off
    "fsspec/tests",
    "huggingface_hub/cli",  # `hf`, a program of its own
    "huggingface_hub/templates",
    "pydantic/v1",
    "pydantic/mypy.py",
    "multidict/_testcapi*.so",
)
"""Paths (globs) below site-packages that nothing of ours reaches."""

KEPT_LEXERS = ("__init__.py", "_mapping.py", "special.py", "python.py", "_python_builtins.py", "data.py")
"""Of pygments' 260 lexers rich needs none unless code is shown; these cover YAML, JSON and tracebacks."""

UNCOMPILED = re.compile(r"/(pygments|huggingface_hub|fsspec|redis)/")
"""Big packages that are imported rarely or in part: compiled they would cost 12 MB and save a tenth of a second."""


BUILD_CERTIFICATES = Path("/run/secrets/pip-cert")
"""Certificate authorities of the building host, where PyPI is behind a proxy that has its own."""


def pruned_paths(site: Path) -> list[Path]:
    """Return what to delete below `site`."""
    paths = [path for pattern in PRUNED for path in site.glob(pattern)]
    paths += [path for path in (site / "pygments/lexers").glob("*") if path.name not in KEPT_LEXERS]
    paths += [path for path in site.rglob("*") if path.suffix in SOURCE_SUFFIXES and path.is_file()]
    return paths + list(site.rglob("__pycache__"))


def prune(paths: Iterable[Path]) -> None:
    """Delete `paths`; some may lie below others."""
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
    """Byte-compile `tree`. The files in an image never change, so nothing is compared when they are loaded."""
    done = compileall.compile_dir(
        tree, quiet=1, rx=skip, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, legacy=False
    )
    if not done:
        raise SystemExit(f"error: {tree} does not compile")


def install(lock: Path, out: Path) -> Path:
    """Make the virtual environment at `out` with the locked packages and no pip; return its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(out)], check=True)
    python = str(out / "bin/python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-cache-dir", "--no-compile"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore", "--no-deps", "--require-hashes"]
    if BUILD_CERTIFICATES.exists():
        command += ["--cert", str(BUILD_CERTIFICATES)]
    subprocess.run([*command, "--only-binary", ":all:", "-r", str(lock)], check=True)
    for script in (out / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()  # activate scripts and the packages' own programs: only ours is run
    return next(out.glob("lib/python3*/site-packages"))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/stage_python.py", description="Make the image's environment.")
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--path", help="one more folder to import from, added to the environment")
    parser.add_argument("--compile-only", type=Path, metavar="DIR", help="byte-compile DIR and do nothing else")
    options = parser.parse_args(argv)
    if options.compile_only:
        compile_tree(options.compile_only)
        return 0
    if not (options.lock and options.out):
        parser.error("--lock and --out are needed")
    site = install(options.lock, options.out)
    if options.path:
        (site / "app.pth").write_text(options.path + "\n", encoding="utf-8")
    strip_libraries(site)
    prune(pruned_paths(site))
    compile_tree(site, UNCOMPILED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
