"""Which tags an image gets for a git ref. Pure, so that it is tested before a release.

    python image/scripts/tags.py --ref refs/tags/v1.2.3 --variant cpu [--existing v1.2.2 --existing v1.3.0]
    python image/scripts/tags.py --ref refs/heads/main --sha 0123abc --variant cuda

The tag of a release X.Y.Z is never moved. X.Y, X and bare names (`latest`, `cpu`) move only to newer versions: a patch
of an older line does not change them. All other refs get `sha-…` and, on main, `edge`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import recipe

_RELEASE = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:alpha|beta|rc)\.[1-9]\d*))?")
Version = tuple[int, int, int]


class TagError(Exception):
    """The ref is a tag but no release, or has no commit to tag by."""


def parse_release(tag: str) -> tuple[Version, str] | None:
    """Return (version, pre-release) of a git tag `vX.Y.Z[-rc.N]`, None for any other name."""
    match = _RELEASE.fullmatch(tag)
    if not match:
        return None
    return (int(match[1]), int(match[2]), int(match[3])), match[4] or ""


def is_exact(tag: str) -> bool:
    """Return whether the image tag `tag` names one exact release."""
    return re.search(r"(^|-)\d+\.\d+\.\d+(-[a-z]+\.\d+)?$", tag) is not None


def is_commit(tag: str) -> bool:
    """Return whether the image tag `tag` names a commit."""
    return re.search(r"(^|-)sha-[0-9a-f]{12}$", tag) is not None


def _final_versions(tags: Iterable[str]) -> list[Version]:
    parsed = [parse_release(tag) for tag in tags]
    return [release[0] for release in parsed if release and not release[1]]


def release_names(tag: str, existing: Iterable[str]) -> tuple[list[str], bool]:
    """Return (version names, newest of all) for the git tag `tag`, given the existing release tags."""
    release = parse_release(tag)
    if release is None:
        raise TagError(f"{tag} is no release: a release's tag is vX.Y.Z or vX.Y.Z-rc.N")
    version, prerelease = release
    exact = ".".join(map(str, version)) + (f"-{prerelease}" if prerelease else "")
    if prerelease:
        return [exact], False
    newer = [other for other in _final_versions(existing) if other > version]
    names = [exact]
    if not any(other[:2] == version[:2] for other in newer):
        names.append(f"{version[0]}.{version[1]}")
    if not any(other[0] == version[0] for other in newer):
        names.append(str(version[0]))
    return names, not newer


def image_tags(ref: str, sha: str, prefixes: Iterable[str], existing: Iterable[str]) -> list[str]:
    """Return the tags for `ref`; a variant's empty prefix means the unprefixed names, `latest` among them."""
    if ref.startswith("refs/tags/"):
        names, newest = release_names(ref.removeprefix("refs/tags/"), existing)
        moving = newest
        bare = "latest"
    else:
        if not sha:
            raise TagError(f"{ref} is no tag, so its images are named by commit: --sha is required")
        names, moving, bare = [f"sha-{sha[:12]}"], ref == "refs/heads/main", "edge"
    tags = []
    for prefix in prefixes:
        tags += [f"{prefix}-{name}" if prefix else name for name in names]
        if moving:
            # A variant's bare name is its newest release; unreleased images have a suffix.
            tags.append((prefix if bare == "latest" else f"{prefix}-{bare}") if prefix else bare)
    return tags


def git_release_tags() -> list[str]:
    """Return the repository's tags."""
    done = subprocess.run(["git", "tag", "--list", "v*"], cwd=recipe.ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.split()


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/tags.py", description="Print an image's tags, one per line.")
    parser.add_argument("--ref", required=True, help="as in GITHUB_REF")
    parser.add_argument("--sha", default="")
    parser.add_argument("--variant", required=True)
    parser.add_argument("--existing", action="append", help="an existing release tag (default: those of git)")
    options = parser.parse_args(argv)
    try:
        variant = recipe.load().variant(options.variant)
        existing = options.existing if options.existing is not None else git_release_tags()
        tags = image_tags(options.ref, options.sha, variant.tag_prefixes, existing)
    except (TagError, recipe.RecipeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("".join(f"{tag}\n" for tag in tags))
    return 0


if __name__ == "__main__":
    sys.exit(main())
