"""Build the image of a variant with buildah: `make image VARIANT=cpu`.

    python image/scripts/build_image.py --variant cpu [--base BASE] [--cuda-architectures 89-real]

The image is tagged localhost/llama-gguf-inference:VARIANT. The build uses engine wheels from the user's cache, and a
wheel compiled there is copied to the cache, so each machine compiles the engine once. Prints the layer sizes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import build, compiler, cuda_toolkit, recipe
from image.scripts import image_size

ROOT = recipe.ROOT
MOUNTED_LIBRARIES = "/cuda-libraries"
"""Where the Containerfile mounts the libraries of a toolkit from PyPI."""


class ImageError(Exception):
    """The image cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The version of the working tree."""

    version: str
    commit: str
    created: str


def local_name(recipes: recipe.Recipes, variant: str) -> str:
    """Return the name of the built image on this machine."""
    return f"localhost/{recipes.image.name}:{variant}"


def local_base(base: recipe.Base) -> str | None:
    """Return the name of the local replacement for `base` that base-image.sh builds."""
    return f"localhost/llama-gguf-base:{base.suite}" if base.suite else None


def _output(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def identify() -> Identity:
    """Return the version and commit of the working tree; the commit ends in `-dirty` with uncommitted changes."""
    text = (ROOT / "services/llama_gguf/__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if not match:
        raise ImageError("services/llama_gguf/__init__.py has no __version__")
    commit = _output(["git", "rev-parse", "HEAD"])
    if _output(["git", "status", "--porcelain", "--", "services", "image"]):
        commit += "-dirty"
    seconds = int(_output(["git", "show", "-s", "--format=%ct", "HEAD"]))
    return Identity(match[1], commit, datetime.fromtimestamp(seconds, UTC).isoformat())


def choose_base(base: recipe.Base, mode: str, *, exists: bool) -> str:
    """Return the reference for FROM: the registry's image, or the local replacement. Raises ImageError."""
    local = local_base(base)
    if mode == "local" or (mode == "auto" and exists):
        if not (local and exists):
            raise ImageError(f"no local base image {local or 'for ' + base.reference}; build it with `make base-image`")
        return local
    if mode == "pinned" and not base.digest:
        raise ImageError(
            f"{base.reference} has no digest in image/variants.yaml; run `make pin-bases` with access to the registry"
        )
    return f"{base.image}:{base.tag}" if mode == "newest" else base.reference


def pinning_note(reference: str) -> str:
    """Return a note for a base that is not pinned, otherwise ""."""
    return "" if "@sha256:" in reference or reference.startswith("localhost/") else " (by tag, not pinned by digest)"


def cuda_libraries(variant: recipe.Variant) -> str:
    """Return where the builder stage finds CUDA's runtime libraries: NVIDIA's devel image has its own."""
    if not variant.cuda:
        return ""
    return MOUNTED_LIBRARIES if variant.toolkit else "/usr/local/cuda/lib64"


def link_cuda_libraries(recipes: recipe.Recipes, variant: recipe.Variant, cache: Path, into: Path) -> None:
    """Link the runtime libraries of a toolkit from PyPI into `into`, downloaded first if missing."""
    into.mkdir()
    if variant.toolkit:
        toolkit = recipes.toolkits[variant.toolkit]
        folder = cuda_toolkit.runtime_library_folder(toolkit, cache.parent / "toolkits")
        for name in toolkit.runtime_libraries:
            os.link(folder / name, into / name)


def build_arguments(
    recipes: recipe.Recipes,
    variant: recipe.Variant,
    identity: Identity,
    bases: Mapping[str, str],
    env: Mapping[str, str],
) -> dict[str, str]:
    """Return the Containerfile's arguments."""
    repository = env.get("GITHUB_REPOSITORY", "")
    return {
        "BASE_BUILD": bases["build"],
        "BASE_RUNTIME": bases["runtime"],
        "BASE_NAME": bases["runtime"],
        "VARIANT": variant.name,
        "VERSION": identity.version,
        "COMMIT": identity.commit,
        "CREATED": identity.created,
        "CUDA_VERSION": variant.cuda.version if variant.cuda else "",
        "CUDA_LIBRARIES": cuda_libraries(variant),
        "TITLE": recipes.image.title,
        "DESCRIPTION": f"{recipes.image.description} ({variant.description})",
        "LICENSES": recipes.image.licenses,
        "SOURCE": f"https://github.com/{repository}" if repository else "",
    }


def isolation(env: Mapping[str, str]) -> list[str]:
    """Return buildah's isolation: chroot inside a container, where namespaces cannot be created."""
    if "BUILDAH_ISOLATION" in env or Path("/run/systemd/system").exists():
        return []
    return ["--isolation", "chroot"]


def command_line(
    recipes: recipe.Recipes, arguments: Mapping[str, str], contexts: Path, target: str, output: list[str]
) -> list[str]:
    """Return buildah's command line. Docker's format, because OCI's has no HEALTHCHECK."""
    command = ["buildah", "build", *isolation(os.environ), "--layers", "--format", "docker"]
    command += ["--timestamp", str(recipes.image.layer_timestamp), "--ignorefile", "image/containerignore"]
    if certificates := os.environ.get("PIP_CERT"):
        command += ["--secret", f"id=pip-cert,src={certificates}"]
    for context in ("engine-cache", "cuda-libraries"):
        command += ["--build-context", f"{context}={contexts / context}"]
    command += ["--file", "image/Containerfile", "--target", target]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, *output, "."]


def cached_builds(cache: Path, variant: str) -> list[Path]:
    """Return the folders of finished wheels of `variant`."""
    return sorted(path.parent for path in cache.glob(f"*-{variant}-*/*.whl"))


def _run(command: list[str]) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise ImageError(f"{command[0]} failed; its messages are above")


def cache_compiled(command: list[str], contexts: Path, cache: Path) -> list[Path]:
    """Build the engine stage with `command`, which compiles the engine unless a cached wheel has its key.

    A compiled wheel is copied to the cache and to the build context. Returns the folders of such wheels. Only the stage
    knows the key, because it depends on the stage's own machine.
    """
    fetched = contexts / "fetched"
    _run([*command[:-1], "--output", str(fetched), command[-1]])
    cached = []
    for folder in sorted(path.parent for path in fetched.glob("*/*.whl")):
        target = cache / folder.name
        if not target.exists():  # a parallel build has cached the same
            folder.rename(target)
        shutil.copytree(target, contexts / "engine-cache" / target.name, copy_function=os.link, dirs_exist_ok=True)
        cached.append(target)
    return cached


def build_variant(options: argparse.Namespace) -> str:
    """Build the image; return its name."""
    if not shutil.which("buildah"):
        raise ImageError("buildah is not installed; run `make image-tools`")
    recipes = recipe.load()
    variant = recipes.variant(options.variant)
    if not variant.image:
        raise ImageError(f"variant {variant.name} has no image: it is for the machine that builds it")
    bases = {}
    for role, name in variant.bases.items():
        base = recipes.bases[name]
        inspect = ["buildah", "inspect", "--type", "image", local_base(base) or "none"]
        exists = subprocess.run(inspect, capture_output=True, check=False).returncode == 0
        bases[role] = choose_base(base, options.base, exists=exists)
    arguments = build_arguments(recipes, variant, identify(), bases, os.environ)
    if options.cuda_architectures:
        arguments["CUDA_ARCHITECTURES"] = options.cuda_architectures
    cache = build.default_cache(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    name = local_name(recipes, variant.name)
    with tempfile.TemporaryDirectory(prefix="contexts.", dir=cache) as scratch:
        contexts = Path(scratch)
        (contexts / "engine-cache").mkdir()
        link_cuda_libraries(recipes, variant, cache, contexts / "cuda-libraries")
        for folder in cached_builds(cache, variant.name):
            shutil.copytree(folder, contexts / "engine-cache" / folder.name, copy_function=os.link)
        for folder in cache_compiled(command_line(recipes, arguments, contexts, "engine-wheel", []), contexts, cache):
            compiler.say(f"cached the engine for the next build: {folder}")
        compiler.say(f"building {name} on {bases['runtime']}{pinning_note(bases['runtime'])}")
        fresh = ["--no-cache"] if options.no_cache else []
        _run(command_line(recipes, arguments, contexts, variant.name, [*fresh, "--tag", name]))
    return name


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/build_image.py", description="Build an image.")
    parser.add_argument("--variant", required=True)
    parser.add_argument(
        "--base",
        choices=("auto", "local", "registry", "pinned", "newest"),
        default="auto",
        help="source of base images; auto: the local one if `make base-image` built it; registry: by digest where "
        "there is one; pinned: only by digest; newest: by tag",
    )
    parser.add_argument("--cuda-architectures", help="override the variant's list, to build for one kind of GPU")
    parser.add_argument("--no-cache", action="store_true", help="reuse no layer of an earlier build")
    options = parser.parse_args(argv)
    try:
        name = build_variant(options)
        sys.stdout.write(image_size.table(image_size.measure(name)))
    except (ImageError, recipe.RecipeError, image_size.SizeError) as error:
        compiler.say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
