"""The workflow's build matrix, from variants.yaml: one entry for each variant and architecture, with its engine's key.

    python image/scripts/matrix.py [--hosted]       # prints `matrix={…}`, the format of GITHUB_OUTPUT

Without --hosted, variants that only a release builds are omitted. The key is the cache key of the compiled engine: it
changes exactly when the engine must be compiled again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # run by path: `image` is found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from image.engine import recipe

RUNNERS = {"amd64": "ubuntu-24.04", "arm64": "ubuntu-24.04-arm"}
"""Every architecture is built natively: nothing is emulated."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def engine_key(recipes: recipe.Recipes, variant: recipe.Variant, architecture: str) -> str:
    """Return the cache key of the engine of `variant`; the base's tag represents the C library of its builder."""
    machine = recipe.Machine(MACHINES[architecture], recipes.bases[variant.bases["build"]].tag, "", ())
    return recipe.current_key(recipes, variant, recipe.cmake_arguments(variant), machine)


def entries(recipes: recipe.Recipes, *, hosted: bool) -> list[dict[str, str]]:
    """Return the matrix's entries."""
    found = []
    for variant in recipes.images():
        if variant.hosted_only and not hosted:
            continue
        for platform in variant.platforms:
            architecture = platform.removeprefix("linux/")
            entry = {"variant": variant.name, "architecture": architecture, "runner": RUNNERS[architecture]}
            found.append(entry | {"engine": engine_key(recipes, variant, architecture)})
    return found


def variants(found: list[dict[str, str]]) -> list[str]:
    """Return the variants among `found`, each once."""
    return list(dict.fromkeys(entry["variant"] for entry in found))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/matrix.py", description="Print the workflow's build matrix.")
    parser.add_argument("--hosted", action="store_true", help="include the variants that only a release builds")
    found = entries(recipe.load(), hosted=parser.parse_args(argv).hosted)
    sys.stdout.write(f"matrix={json.dumps({'include': found})}\nvariants={json.dumps(variants(found))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
