"""variants.yaml, the Containerfile and what the platforms' specs believe of the images agree."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from image.engine import recipe
from image.scripts import build_image

from llama_gguf.platforms import container

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = (ROOT / "image/Containerfile").read_text(encoding="utf-8")
RECIPES = recipe.load()
IMAGES = RECIPES.images()


def test_these_are_the_variants() -> None:
    assert list(RECIPES.variants) == ["native", "cpu", "cuda", "cuda12"]
    assert {variant.name: variant.platforms for variant in IMAGES} == {
        "cpu": ("linux/amd64", "linux/arm64"),
        "cuda": ("linux/amd64",),
        "cuda12": ("linux/amd64",),
    }


@pytest.mark.parametrize("variant", IMAGES, ids=lambda variant: variant.name)
def test_an_image_has_no_instruction_that_only_the_builders_processor_knows(variant: recipe.Variant) -> None:
    assert variant.cmake["GGML_NATIVE"] == "OFF"
    assert variant.cmake["GGML_CPU_ALL_VARIANTS"] == "ON"
    assert not variant.per_cpu


def test_the_developers_own_build_uses_its_processor() -> None:
    native = RECIPES.variant("native")
    assert native.cmake["GGML_NATIVE"] == "ON"
    assert native.per_cpu
    assert not native.image


def test_cuda_architectures_cover_the_promised_ones_and_one_is_kept_as_ptx_that_newer_gpus_can_use() -> None:
    architectures = RECIPES.variant("cuda").cuda_architectures
    assert {name.split("-")[0] for name in architectures} == {"75", "80", "86", "89", "90", "100", "120"}
    for variant in IMAGES:
        with_ptx = [name for name in variant.cuda_architectures if not name.endswith("-real")]
        # llama.cpp turns 12X into 12Xa, whose PTX no other GPU takes.
        assert len(with_ptx) == (1 if variant.cuda else 0)
        assert not any(name.startswith("12") for name in with_ptx)


def test_every_image_variant_is_a_stage() -> None:
    stages = set(re.findall(r"^FROM .+ AS (\S+)$", CONTAINERFILE, re.MULTILINE))
    assert {variant.name for variant in IMAGES} <= stages
    assert "native" not in stages


def test_the_containerfile_takes_exactly_the_arguments_it_is_given() -> None:
    declared = set(re.findall(r"^ARG ([A-Z_]+)", CONTAINERFILE, re.MULTILINE))
    identity = build_image.Identity("1.0.0", "c", "t")
    given = set(build_image.build_arguments(RECIPES, IMAGES[0], identity, {"build": "b", "runtime": "r"}, {}))
    assert declared == given | {"CUDA_ARCHITECTURES"}


def test_the_containerfiles_default_base_is_the_listed_one() -> None:
    base = RECIPES.bases["debian"]
    assert f"ARG BASE_RUNTIME={base.image}:{base.tag}\n" in CONTAINERFILE


def test_bases_are_pinned_by_a_real_digest_or_marked_as_not_pinned() -> None:
    for name, base in RECIPES.bases.items():
        assert base.digest is None or re.fullmatch(r"sha256:[0-9a-f]{64}", base.digest), name


def test_packages_of_a_toolkit_are_pinned_and_belong_to_its_cuda() -> None:
    for kit in RECIPES.toolkits.values():
        names = [package.split("==")[0] for package in kit.packages]
        assert all(re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)+", package) for package in kit.packages)
        assert set(kit.runtime_packages) <= set(names)
        major = kit.version.split(".", maxsplit=1)[0]
        assert all(library.endswith(f".so.{major}") for library in kit.runtime_libraries)


def test_two_variants_never_share_a_tag() -> None:
    prefixes = [prefix for variant in IMAGES for prefix in variant.tag_prefixes]
    assert len(prefixes) == len(set(prefixes))
    # `cpu-1` must not be readable as the prefix `cpu` of another variant's name.
    assert not [pair for pair in itertools.permutations(filter(None, prefixes), 2) if pair[0].startswith(pair[1] + "-")]


def test_the_platforms_specs_ask_for_what_the_images_need() -> None:
    cuda = {variant.name: variant.cuda for variant in IMAGES if variant.cuda}
    assert set(container.MINIMUM_CUDA) == set(cuda)
    # A driver 580 offers CUDA 13.0, and 525 is the first that runs any CUDA 12.
    promised = {580: "13.0", 525: "12.0"}
    assert {name: promised[found.minimum_driver] for name, found in cuda.items()} == container.MINIMUM_CUDA
    for name, capability in container.MINIMUM_COMPUTE.items():
        lowest = min(int(found.split("-")[0]) for found in RECIPES.variant(name).cuda_architectures)
        assert lowest == capability, name
