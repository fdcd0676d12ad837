"""image/variants.yaml as typed values, and the CMake arguments and cache key that follow from it.

Owns the schema of variants.yaml: an unknown or missing field is an error. Pure except `load`, `pinned_version` and
`current_key`, which read files. Needs only PyYAML, because it also runs in the image's builder stage.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIANTS_FILE = ROOT / "image/variants.yaml"
ENGINE_LOCK = ROOT / "image/engine/requirements.lock"
PATCHES_FILE = ROOT / "image/engine/patches.cmake"


_WHEEL_FORMAT = 2  # increase when wheel.py changes the wheels, so that old ones are not reused

T = TypeVar("T")


class RecipeError(Exception):
    """variants.yaml, or a lock file, is invalid, or a variant is unknown."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base image: by digest where there is one, otherwise by tag; `suite` is its Debian suite for debootstrap."""

    image: str
    tag: str
    digest: str | None
    suite: str | None

    @property
    def reference(self) -> str:
        """Return the reference for a FROM line."""
        return f"{self.image}:{self.tag}@{self.digest}" if self.digest else f"{self.image}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A CUDA toolkit assembled from PyPI packages."""

    version: str
    folder: str
    packages: tuple[str, ...]
    runtime_packages: tuple[str, ...]
    runtime_libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cuda:
    """What a CUDA variant requires of its host."""

    version: str
    minimum_driver: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One build of the engine, and where `image` is set, its image."""

    name: str
    cmake: Mapping[str, str]
    image: bool
    per_cpu: bool = False
    hosted_only: bool = False
    platforms: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    tag_prefixes: tuple[str, ...] = ()
    description: str = ""
    toolkit: str | None = None
    cuda: Cuda | None = None
    cuda_architectures: tuple[str, ...] = ()
    runtime_libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """What all image variants share."""

    name: str
    title: str
    description: str
    licenses: str
    registry: str
    layer_timestamp: int


@dataclass(frozen=True, slots=True)
class Recipes:
    """All of variants.yaml."""

    image: Image
    bases: Mapping[str, Base]
    toolkits: Mapping[str, Toolkit]
    variants: Mapping[str, Variant]
    build_constraints: tuple[str, ...]

    def variant(self, name: str) -> Variant:
        """Return the variant `name`. Raises RecipeError, which lists the known names."""
        if name not in self.variants:
            raise RecipeError(f"no variant {name!r} in image/variants.yaml; known variants: {', '.join(self.variants)}")
        return self.variants[name]

    def images(self) -> tuple[Variant, ...]:
        """Return the variants that have images."""
        return tuple(variant for variant in self.variants.values() if variant.image)

    def runtime_libraries(self, variant: Variant) -> tuple[str, ...]:
        """Return the CUDA libraries that go into the image beside the engine, by soname."""
        if variant.toolkit:
            return self.toolkits[variant.toolkit].runtime_libraries
        return variant.runtime_libraries


def _cmake_value(value: object) -> str:
    if isinstance(value, bool):  # YAML reads ON and OFF as booleans
        return "ON" if value else "OFF"
    return str(value)


def _cmake(tree: Mapping[str, object]) -> dict[str, str]:
    return {name: _cmake_value(value) for name, value in tree.items()}


def _build(kind: type[T], where: str, tree: Mapping[str, Any]) -> T:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in tree.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise RecipeError(f"image/variants.yaml: {where}: {error}") from error


def _variant(name: str, tree: Mapping[str, Any], common: Mapping[str, str]) -> Variant:
    fields = dict(tree)
    fields["cmake"] = {**common, **_cmake(fields.get("cmake", {}))}
    if fields.get("cuda"):
        fields["cuda"] = _build(Cuda, f"variants.{name}.cuda", fields["cuda"])
    return _build(Variant, f"variants.{name}", {"name": name, **fields})


def parse(tree: Mapping[str, Any]) -> Recipes:
    """Convert the document to values. Raises RecipeError."""
    common = _cmake(tree["engine"]["cmake"])
    recipes = Recipes(
        image=_build(Image, "image", tree["image"]),
        bases={name: _build(Base, f"bases.{name}", base) for name, base in tree["bases"].items()},
        toolkits={name: _build(Toolkit, f"toolkits.{name}", kit) for name, kit in tree["toolkits"].items()},
        variants={name: _variant(name, variant, common) for name, variant in tree["variants"].items()},
        build_constraints=tuple(tree["engine"]["build_constraints"]),
    )
    for variant in recipes.variants.values():
        unknown = [base for base in variant.bases.values() if base not in recipes.bases]
        if variant.toolkit and variant.toolkit not in recipes.toolkits:
            unknown.append(variant.toolkit)
        if unknown:
            raise RecipeError(
                f"image/variants.yaml: variants.{variant.name} names {', '.join(unknown)}, which is not defined"
            )
    return recipes


def load(path: Path = VARIANTS_FILE) -> Recipes:
    """Read variants.yaml."""
    return parse(yaml.safe_load(path.read_text(encoding="utf-8")))


def engine_version(lock: str) -> str:
    """Return the version of llama-cpp-python that the text of image/engine/requirements.lock pins."""
    match = re.search(r"^llama-cpp-python==(\S+)", lock, re.MULTILINE)
    if not match:
        raise RecipeError("image/engine/requirements.lock pins no llama-cpp-python; run `make lock`")
    return match[1]


def pinned_version() -> str:
    """Read the version of llama-cpp-python that is built."""
    return engine_version(ENGINE_LOCK.read_text(encoding="utf-8"))


def cmake_arguments(variant: Variant, *, architectures: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return the -D arguments of `variant`, in the order of variants.yaml; `architectures` overrides CUDA's list."""
    flags = dict(variant.cmake)
    wanted = variant.cuda_architectures if architectures is None else architectures
    if variant.cuda:
        flags["CMAKE_CUDA_ARCHITECTURES"] = ";".join(wanted)
    return tuple(f"-D{name}={value}" for name, value in flags.items())


@dataclass(frozen=True, slots=True)
class Machine:
    """What the binary depends on in the building machine: architecture, C library, and the CPU's model and features."""

    architecture: str
    libc: str
    model: str
    cpu_flags: tuple[str, ...]

    @classmethod
    def parse(cls, architecture: str, libc: str, cpuinfo: str) -> Machine:
        """Read the CPU's model and features from the text of /proc/cpuinfo (first processor)."""
        first = cpuinfo.split("\n\n", 1)[0]
        facts = dict(re.findall(r"^([^\t:]+?)\s*:\s*(.*)$", first, re.MULTILINE))
        features = facts.get("flags") or facts.get("Features") or ""
        model = facts.get("model name") or facts.get("CPU part") or ""
        return cls(architecture, libc, model.strip(), tuple(sorted(features.split())))

    @property
    def cpu(self) -> str:
        """The CPU as text: its model and flags."""
        return " ".join([self.model, *self.cpu_flags]).strip()


def cache_key(
    recipes: Recipes, variant: Variant, version: str, arguments: tuple[str, ...], machine: Machine, *, patches: str
) -> str:
    """Return the name under which this build is cached: everything that changes the binary changes the key.

    `patches` is the text of image/engine/patches.cmake.
    """
    toolkit = list(recipes.toolkits[variant.toolkit].packages) if variant.toolkit else []
    facts: list[object] = [_WHEEL_FORMAT, version, toolkit, list(arguments)]
    facts += [machine.architecture, machine.libc, patches]
    if variant.per_cpu:
        facts.append(machine.cpu)
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return f"{version}-{variant.name}-{machine.architecture}-{digest}"


def current_key(recipes: Recipes, variant: Variant, arguments: tuple[str, ...], machine: Machine) -> str:
    """Return the cache key of a build from this tree: the version it pins, with its patches."""
    patches = PATCHES_FILE.read_text(encoding="utf-8")
    return cache_key(recipes, variant, pinned_version(), arguments, machine, patches=patches)
