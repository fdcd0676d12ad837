"""Builds the documentation site and checks it: `make docs`.

python docs/site/build.py --out build/docs
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

if not __package__:  # run by path: `docs` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from docs.site.check import defects

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="docs/site/build.py", description="Build the documentation site.")
    parser.add_argument("--out", type=Path, default=ROOT / "build/docs")
    parser.add_argument("--source", type=Path, default=ROOT, help="folder with the pages, each at its path")
    options = parser.parse_args(argv)
    out = options.out.resolve()
    if (out / ".buildinfo").exists():  # a page that is gone must not stay
        shutil.rmtree(out)
    sphinx = [sys.executable, "-m", "sphinx", "--builder", "html", "--quiet", "--fresh-env", "--jobs", "auto"]
    strict = ["--fail-on-warning", "--nitpicky"]
    places = ["--conf-dir", str(Path(__file__).parent), "--doctree-dir", str(out.with_name(f"{out.name}-cache"))]
    status = subprocess.run([*sphinx, *strict, *places, str(options.source), str(out)], check=False).returncode
    found = [] if status else defects(out)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if not status and not found:
        sys.stdout.write(f"{out / 'index.html'}\n")
    return status or int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
