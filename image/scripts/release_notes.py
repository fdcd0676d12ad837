"""Notes of a release: its section of CHANGELOG.md and the sizes of its images.

python image/scripts/release_notes.py --ref refs/tags/v1.2.3 --sizes build/images --out build/release-notes.md
python image/scripts/release_notes.py --ref refs/tags/v1.2.3 --check    # version, changelog and tag agree
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine.recipe import ROOT
from image.scripts import image_size, tags


class NotesError(Exception):
    """The release is not ready: its tag, its changelog and its version disagree."""


def section(changelog: str, version: str) -> str:
    """Return the text under `## VERSION` (a date may follow). Raises NotesError."""
    match = re.search(
        rf"^## \[?{re.escape(version)}\]?([ \t][^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if not match or not match[2].strip():
        raise NotesError(f"CHANGELOG.md has no notes under `## {version}`")
    if "unreleased" in (match[1] or "").lower():
        raise NotesError(f"CHANGELOG.md says that {version} is unreleased: add the release date")
    return match[2].strip()


def version_of(ref: str) -> str:
    """Return the version that `ref` releases. Raises NotesError."""
    tag = ref.removeprefix("refs/tags/")
    if tags.parse_release(tag) is None:
        raise NotesError(f"{ref} is no release: a release's tag is vX.Y.Z or vX.Y.Z-rc.N")
    return tag[1:]


def check(version: str, package_init: str, changelog: str) -> str:
    """Return the notes when version, package and changelog agree. Raises NotesError."""
    match = re.search(r'^__version__ = "([^"]+)"', package_init, re.MULTILINE)
    if not match or match[1] != version:
        raise NotesError(f"the tag says {version}, llama_gguf.__version__ says {match[1] if match else 'nothing'}")
    return section(changelog, version)


def hub_note(dockerfile: str, repository: str) -> str:
    """Return a note where RunPod's Hub would not build the image of this `repository`, otherwise ""."""
    image = f"ghcr.io/{repository.lower()}"
    if not repository or f"\nFROM {image}:" in f"\n{dockerfile}":
        return ""
    return f"note: .runpod/Dockerfile does not use {image}, so RunPod's Hub cannot build this release"


def size_table(folders: list[Path]) -> str:
    """Return a table of the saved images."""
    lines = ["| image | compressed | unpacked | ours, unpacked |", "|---|---|---|---|"]
    for folder in folders:
        layers = image_size.read_layers(folder)
        sizes = (sum(layer.compressed for layer in layers), sum(layer.unpacked for layer in layers))
        cells = [f"{size / image_size.MEGABYTE:.0f} MB" for size in (*sizes, image_size.own_bytes(layers))]
        lines.append(f"| {folder.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/release_notes.py", description="Write a release's notes.")
    parser.add_argument("--ref", required=True)
    parser.add_argument("--sizes", type=Path, help="folder of saved images")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(argv)
    try:
        notes = check(
            version_of(options.ref),
            (ROOT / "services/llama_gguf/__init__.py").read_text(encoding="utf-8"),
            (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        )
    except NotesError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if note := hub_note(
        (ROOT / ".runpod/Dockerfile").read_text(encoding="utf-8"), os.environ.get("GITHUB_REPOSITORY", "")
    ):
        sys.stderr.write(note + "\n")
    if options.sizes:
        saved = sorted(path.parent for path in options.sizes.glob("*/manifest.json"))
        notes += f"\n\n## Sizes\n\n{size_table(saved)}"
    if options.out and not options.check:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(notes + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
