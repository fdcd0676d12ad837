"""variants.yaml as values: strict, and the cache key changes with everything that changes the binary."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import yaml
from image.engine import recipe

AMD = """processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu avx2 sse

processor\t: 1
model name\t: other
"""


@pytest.fixture
def tree() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(recipe.VARIANTS_FILE.read_text(encoding="utf-8"))
    return found


def test_flags_are_common_ones_then_own_ones_with_on_and_off_spelt_out() -> None:
    arguments = recipe.cmake_arguments(recipe.load().variant("cpu"))
    assert arguments[0] == "-DLLAVA_BUILD=OFF"
    assert arguments[-3:] == ("-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON")
    assert "-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib:$ORIGIN" in arguments
    assert not [argument for argument in arguments if "True" in argument or "False" in argument]


def test_cuda_architectures_can_be_overridden() -> None:
    variant = recipe.load().variant("cuda")
    assert "-DCMAKE_CUDA_ARCHITECTURES=89-real" in recipe.cmake_arguments(variant, architectures=("89-real",))
    assert "-DCMAKE_CUDA_ARCHITECTURES=75-real;80-real" in recipe.cmake_arguments(variant)[-1]


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (("variants", "cpu", "platfroms"), ["linux/amd64"], "variants.cpu"),
        (("bases", "debian", "colour"), "blue", "bases.debian"),
        (("variants", "cpu", "bases"), {"build": "alpine"}, "alpine"),
        (("variants", "cuda", "toolkit"), "cuda99", "cuda99"),
    ],
)
def test_what_it_does_not_know_is_an_error(
    tree: dict[str, Any], place: tuple[str, ...], change: Any, words: str
) -> None:
    node = tree
    for name in place[:-1]:
        node = node[name]
    node[place[-1]] = change
    with pytest.raises(recipe.RecipeError, match=words):
        recipe.parse(tree)


def test_an_unknown_variant_is_told_with_the_known_ones() -> None:
    with pytest.raises(recipe.RecipeError, match="native, cpu, cuda"):
        recipe.load().variant("rocm")


def test_base_by_digest_where_there_is_one() -> None:
    base = recipe.Base("docker.io/library/debian", "12-slim", None, "bookworm")
    assert base.reference == "docker.io/library/debian:12-slim"
    pinned = dataclasses.replace(base, digest="sha256:" + "0" * 64)
    assert pinned.reference == "docker.io/library/debian:12-slim@sha256:" + "0" * 64


def test_machine_is_read_from_the_first_processor() -> None:
    machine = recipe.Machine.parse("x86_64", "glibc2.36", AMD)
    assert machine.cpu == "AMD EPYC avx2 fpu sse"
    assert (machine.model, machine.cpu_flags) == ("AMD EPYC", ("avx2", "fpu", "sse"))
    arm = recipe.Machine.parse("aarch64", "glibc2.36", "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n")
    assert arm.cpu == "0xd0c asimd fp"
    assert recipe.Machine.parse("riscv64", "glibc2.36", "").cpu == ""


def key(variant: str = "native", tree: dict[str, Any] | None = None, *, patches: str = "# none", **changes: str) -> str:
    recipes = recipe.parse(tree) if tree else recipe.load()
    facts = {"architecture": "x86_64", "libc": "glibc2.36", "model": "AMD", "flags": "avx avx2", **changes}
    machine = recipe.Machine(facts["architecture"], facts["libc"], facts["model"], tuple(facts["flags"].split()))
    found = recipes.variant(variant)
    return recipe.cache_key(recipes, found, "0.3.36", recipe.cmake_arguments(found), machine, patches=patches)


def test_key_changes_with_everything_that_shapes_the_binary(tree: dict[str, Any]) -> None:
    other_flag, other_package = copy.deepcopy(tree), copy.deepcopy(tree)
    other_flag["engine"]["cmake"]["LLAMA_OPENSSL"] = True
    other_package["toolkits"]["cuda13"]["packages"][0] = "nvidia-cuda-nvcc==13.0.99"
    assert key().startswith("0.3.36-native-x86_64-")
    assert key() == key()
    assert len({key(), key(model="Intel"), key(flags="avx"), key(libc="glibc2.41")}) == 4
    assert len({key(), key("cpu"), key(tree=other_flag)}) == 3
    assert key(patches="# one") != key()
    assert key("cuda") != key("cuda", tree=other_package)


def test_a_portable_build_is_the_same_on_every_processor() -> None:
    assert key("cpu", model="Intel") == key("cpu", flags="avx512f")


def test_engine_version_is_the_locks() -> None:
    assert recipe.engine_version("# x\nllama-cpp-python==1.2.3 \\\n    --hash=sha256:0\n") == "1.2.3"
    with pytest.raises(recipe.RecipeError, match="make lock"):
        recipe.engine_version("numpy==1.0\n")
