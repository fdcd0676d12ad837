"""Write the lock files, with hashes: of the image's packages, the engine and the starter model's package.

The pins of image/requirements.lock and image/engine/requirements.lock are in pyproject.toml, that of
image/engine/starter.lock is in image/engine/starter.py.

    python image/scripts/lock.py            # write them
    python image/scripts/lock.py --check   # exit 1 where they differ from the pins

Writing needs `uv` (`make lock` installs it); the check only compares pins, so it runs offline in a test.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import starter

ROOT = Path(__file__).resolve().parents[2]
RUNTIME_LOCK = ROOT / "image/requirements.lock"
ENGINE_LOCK = ROOT / "image/engine/requirements.lock"
PYTHON = "3.11"
EXTRAS = ("redis",)
"""Extras in the image besides the dependencies."""


def pins(text: str) -> dict[str, str]:
    """Return name -> version of every `name==version` that starts a line."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def wanted(pyproject: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pins that the runtime lock and the engine lock must hold."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    runtime = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    return pins("\n".join(runtime)), pins("\n".join(extras["engine"]))


def differences(want: dict[str, str], lock: dict[str, str], source: str = "pyproject.toml") -> list[str]:
    """Return a line for each pin of `source` that is missing or different in the lock."""
    return [
        f"{name}: {source} has {version}, the lock {lock.get(name, 'nothing')}"
        for name, version in want.items()
        if lock.get(name) != version
    ]


def unhashed(lock: str) -> list[str]:
    """Return the pinned lines without a hash."""
    lines = lock.replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"[A-Za-z0-9]", line) and "--hash=sha256:" not in line]


def check() -> list[str]:
    """Return what is wrong with the lock files; empty where they are up to date."""
    runtime, engine = wanted((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wrong = []
    for path, want, source in (
        (RUNTIME_LOCK, runtime, "pyproject.toml"),
        (ENGINE_LOCK, engine, "pyproject.toml"),
        (starter.LOCK, pins(starter.REQUIREMENT), "starter.py"),
    ):
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.relative_to(ROOT)}: {line}" for line in differences(want, pins(text), source)]
        wrong += [f"{path.relative_to(ROOT)}: no hash: {line}" for line in unhashed(text)]
    return wrong


def _compile(arguments: list[str], into: Path, *, stdin: str | None = None) -> None:
    command = ["uv", "pip", "compile", "--universal", "--python-version", PYTHON, "--generate-hashes", "--quiet"]
    command += ["--custom-compile-command", "make lock", "--no-progress", *arguments, "-o", str(into)]
    subprocess.run(command, cwd=ROOT, input=stdin, text=True, check=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/lock.py", description="Write or check the lock files.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--upgrade", action="store_true", help="resolve what pyproject.toml does not pin to the newest versions"
    )
    options = parser.parse_args(argv)
    if not options.check:
        upgrade = ["--upgrade"] if options.upgrade else []
        extras = [argument for extra in EXTRAS for argument in ("--extra", extra)]
        _compile(["pyproject.toml", *extras, *upgrade], RUNTIME_LOCK)
        _, engine = wanted((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        lines = "".join(f"{name}=={version}\n" for name, version in engine.items())
        _compile(["-", "--no-deps"], ENGINE_LOCK, stdin=lines)
        _compile(["-", "--no-deps"], starter.LOCK, stdin=starter.REQUIREMENT + "\n")
    for line in (wrong := check()):
        sys.stderr.write(line + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
