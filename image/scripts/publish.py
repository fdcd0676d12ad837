"""Publish a tested local image to a registry, without building it again.

    publish.py save --variant cpu --out build/images        # after the tests: layers and manifest, in a folder
    publish.py push --variant cpu --from build/images --repository ghcr.io/OWNER/NAME --run 123
    publish.py tag  --repository ghcr.io/OWNER/NAME --digest sha256:… --variant cpu --ref refs/tags/v1.2.3

`save` compresses once; `push` preserves the digests, so what is signed is what was tested. Public tags come last, after
the scan and the signature: `push` uses a staging tag of its run. Needs skopeo and buildah, logged in by the caller.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import recipe
from image.scripts import build_image, tags

_ABSENT = re.compile(r"(manifest|name) unknown", re.IGNORECASE)
"""The error of a registry for a missing tag or repository."""


class PublishError(Exception):
    """An image cannot be saved, pushed or tagged."""


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PublishError(f"{' '.join(command[:3])} … failed: {done.stderr.strip()}")
    return done.stdout.strip()


def folder_name(variant: str, architecture: str) -> str:
    """Return the name of the folder that `save` writes."""
    return f"{variant}-{architecture}"


def staging_reference(repository: str, run: str, variant: str, architecture: str = "") -> str:
    """Return the staging tag of an image between push and tag, which contains the run."""
    parts = ["build", run, variant, architecture]
    return f"{repository.lower()}:{'-'.join(filter(None, parts))}"


def save(variant: str, out: Path) -> Path:
    """Write the local image of `variant` to a folder below `out`; return the folder."""
    recipes = recipe.load()
    name = build_image.local_name(recipes, variant)
    architecture = _run(["buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.Architecture}}", name])
    folder = out / folder_name(variant, architecture)
    folder.mkdir(parents=True)
    _run(["skopeo", "copy", "--quiet", "--dest-compress", f"containers-storage:{name}", f"dir:{folder}"])
    return folder


def push(variant: recipe.Variant, source: Path, repository: str, run: str) -> str:
    """Push every architecture of `variant` and one manifest list over them; return the list's digest."""
    whole = staging_reference(repository, run, variant.name)
    _run(["buildah", "manifest", "create", whole])
    try:
        for platform in variant.platforms:
            architecture = platform.removeprefix("linux/")
            folder = source / folder_name(variant.name, architecture)
            if not folder.is_dir():
                raise PublishError(f"{folder} is missing: {variant.name} was not built for {architecture}")
            part = staging_reference(repository, run, variant.name, architecture)
            _run(["skopeo", "copy", "--quiet", "--preserve-digests", f"dir:{folder}", f"docker://{part}"])
            _run(["buildah", "manifest", "add", whole, f"docker://{part}"])
        _run(["buildah", "manifest", "push", "--all", "--format", "v2s2", whole, f"docker://{whole}"])
    finally:
        _run(["buildah", "manifest", "rm", whole])
    return _run(["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{whole}"])


def published_digest(reference: str) -> str | None:
    """Return the digest behind `reference` in the registry, None where there is none.

    Raises PublishError for any other response: only that one proves that a version is not taken.
    """
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{reference}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    if _ABSENT.search(found.stderr):
        return None
    raise PublishError(f"cannot determine whether {reference} is published: {found.stderr.strip()}")


def tag(repository: str, digest: str, names: list[str]) -> list[str]:
    """Give the image `digest` its public tags; return those given.

    A version that is already published as another image is an error. A commit's tag stays on the first image of that
    commit: a weekly rebuild gets the moving tags only.
    """
    repository = repository.lower()
    given = []
    for name in names:
        present = published_digest(f"{repository}:{name}") if tags.is_exact(name) or tags.is_commit(name) else None
        if present and present != digest:
            if tags.is_commit(name):
                continue
            raise PublishError(f"{name} is already published as {present}; version tags are never moved")
        source, target = f"docker://{repository}@{digest}", f"docker://{repository}:{name}"
        _run(["skopeo", "copy", "--quiet", "--all", "--preserve-digests", source, target])
        given.append(name)
    return given


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/publish.py", description="Save, push and tag tested images.")
    actions = parser.add_subparsers(dest="action", required=True)
    saving = actions.add_parser("save")
    saving.add_argument("--out", type=Path, required=True)
    pushing = actions.add_parser("push")
    pushing.add_argument("--from", dest="source", type=Path, required=True)
    pushing.add_argument("--run", required=True, help="name of this run, part of the staging tag")
    tagging = actions.add_parser("tag")
    tagging.add_argument("--digest", required=True)
    tagging.add_argument("--ref", required=True)
    tagging.add_argument("--sha", default="")
    for action in (saving, pushing, tagging):
        action.add_argument("--variant", required=True)
    for action in (pushing, tagging):
        action.add_argument("--repository", required=True, help="registry, owner and name, without a tag")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; `push` prints `digest=…` and `repository=…`, the format of GITHUB_OUTPUT."""
    options = parse_arguments(argv)
    try:
        variant = recipe.load().variant(options.variant)
        if options.action == "save":
            sys.stdout.write(f"{save(variant.name, options.out)}\n")
        elif options.action == "push":
            digest = push(variant, options.source, options.repository, options.run)
            sys.stdout.write(f"digest={digest}\nrepository={options.repository.lower()}\n")
        else:
            names = tags.image_tags(options.ref, options.sha, variant.tag_prefixes, tags.git_release_tags())
            sys.stdout.write(json.dumps(tag(options.repository, options.digest, names)) + "\n")
    except (PublishError, recipe.RecipeError, tags.TagError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
