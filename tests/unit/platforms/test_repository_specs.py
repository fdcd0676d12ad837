"""The ready-made files of the repository are what would be made now, no more and no fewer."""

from __future__ import annotations

from pathlib import Path

import yaml

from llama_gguf.platforms import ready_made
from llama_gguf.platforms.container import MINIMUM_COMPUTE, MINIMUM_CUDA
from support.rendering import ROOT

NOT_MADE = {"image/deploy/README.md"}
DRIVERS = {580: "13.0", 525: "12.0"}
"""The least driver of a CUDA major version -> the version that it offers, by NVIDIA's release notes."""


def files_on_disk() -> dict[str, str]:
    paths = [*(ROOT / "image/deploy").rglob("*"), *(ROOT / ".runpod").rglob("*"), ROOT / "image/compose.yaml"]
    found = {str(path.relative_to(ROOT)): path for path in paths if path.is_file()}
    return {name: path.read_text("utf-8") for name, path in found.items() if name not in NOT_MADE}


def test_files_are_fresh() -> None:
    made, found = ready_made(ROOT), files_on_disk()
    assert sorted(found) == sorted(made), "run `llama-gguf render all`, and remove what it does not write"
    assert [name for name, text in made.items() if found[name] != text] == [], "run `llama-gguf render all`"


def test_every_example_is_ready_made_somewhere() -> None:
    examples = {path.stem for path in (ROOT / "config/examples").glob("*.yaml")}
    assert examples <= {Path(name).parts[3] for name in ready_made(ROOT) if name.startswith("image/deploy/")}


def test_requirements_are_those_of_the_images() -> None:
    variants = yaml.safe_load((ROOT / "image/variants.yaml").read_text("utf-8"))["variants"]
    images = {name: variant for name, variant in variants.items() if variant["image"]}
    assert set(images) == {"cpu", *MINIMUM_CUDA}
    for name, version in MINIMUM_CUDA.items():
        assert DRIVERS[images[name]["cuda"]["minimum_driver"]] == version
        lowest = min(int(str(entry).split("-")[0]) for entry in images[name]["cuda_architectures"])
        assert MINIMUM_COMPUTE[name] == lowest
