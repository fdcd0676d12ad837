"""Base images: resolve each tag to its digest and write it into variants.yaml.

    python image/scripts/bases.py list          # the references for FROM
    python image/scripts/bases.py pin           # query the registry, write the digests into image/variants.yaml
    python image/scripts/bases.py check         # exit 1 while a base has no digest

Needs skopeo and a registry for `pin`. Edits only the line of each digest, so comments and order stay.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import recipe

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class BaseError(Exception):
    """A digest cannot be resolved or cannot be written."""


def with_digest(text: str, name: str, digest: str) -> str:
    """Return the text of variants.yaml with `digest` in the base `name`. Raises BaseError."""
    if not _DIGEST.fullmatch(digest):
        raise BaseError(f"{digest!r} is no digest")
    pattern = re.compile(rf"(^bases:\n(?:.*\n)*?  {re.escape(name)}:\n(?:    .*\n)*?    digest: )\S+", re.MULTILINE)
    changed, count = pattern.subn(rf"\g<1>{digest}", text, count=1)
    if count != 1:
        raise BaseError(f"image/variants.yaml has no `digest:` line for the base {name}")
    return changed


def resolve(base: recipe.Base) -> str:
    """Query the registry for the digest of the tag; of a multi-platform image, that of the index. Raises BaseError."""
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{base.image}:{base.tag}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BaseError(f"cannot query the registry for {base.image}:{base.tag}: {done.stderr.strip()}")
    return done.stdout.strip()


def pin(path: Path) -> list[str]:
    """Write the current digest of every base into `path`; return a line for each that changed."""
    changes = []
    for name, base in recipe.load(path).bases.items():
        digest = resolve(base)
        if digest != base.digest:
            path.write_text(with_digest(path.read_text(encoding="utf-8"), name, digest), encoding="utf-8")
            changes.append(f"{name}: {base.image}:{base.tag} {base.digest or 'unpinned'} -> {digest}")
    return changes


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/bases.py", description="Base images and their digests.")
    parser.add_argument("action", choices=("list", "pin", "check"))
    action = parser.parse_args(argv).action
    try:
        if action == "pin":
            lines = pin(recipe.VARIANTS_FILE) or ["nothing changed"]
        else:
            lines = [f"{name}: {base.reference}" for name, base in recipe.load().bases.items()]
    except BaseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    unpinned = [name for name, base in recipe.load().bases.items() if not base.digest]
    if action == "check" and unpinned:
        sys.stderr.write(
            f"error: no digest for {', '.join(unpinned)}; run `make pin-bases` with access to the registry\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
