"""Write /versions.json: the exact content of this image, for users, bug reports and the image's tests.

Runs in a builder stage with only the standard library.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path


def compose(
    engine: dict[str, object], *, version: str, commit: str, created: str, variant: str, cuda: str, base: str
) -> dict[str, object]:
    """Return the document."""
    return {
        "version": version,
        "commit": commit,
        "created": created,
        "variant": variant,
        "architecture": platform.machine(),
        "base": base,
        "python": platform.python_version(),
        "cuda": cuda or None,
        "engine": engine,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/stage_versions.py", description="Write /versions.json.")
    parser.add_argument("--engine", required=True, type=Path, help="the engine.json that stage_engine.py wrote")
    for name in ("version", "commit", "created", "variant", "base"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cuda", default="")
    parser.add_argument("--out", required=True, type=Path)
    options = vars(parser.parse_args(argv))
    engine = json.loads(options.pop("engine").read_text(encoding="utf-8"))
    out: Path = options.pop("out")
    out.write_text(json.dumps(compose(engine, **options), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
