"""Fixtures of the image tests: which image, and what is mounted into its containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from image.engine import recipe
from testinfra.host import Host

from support.podman import Container, container, inspect_image, podman


@pytest.fixture(scope="session")
def variant() -> recipe.Variant:
    """The variant under test: VARIANT of `make image-test`."""
    return recipe.load().variant(os.environ.get("LLAMA_GGUF_IMAGE_VARIANT", "cpu"))


@pytest.fixture(scope="session")
def image(variant: recipe.Variant) -> str:
    """The built image's name. Its absence is a failure: skipped image tests would look like passed ones."""
    name = f"localhost/{recipe.load().image.name}:{variant.name}"
    if not shutil.which("podman"):
        pytest.fail("podman is missing: run `make image-tools`")
    if podman("image", "exists", name, check=False).returncode != 0:
        pytest.fail(f"{name} is missing: run `make image VARIANT={variant.name}`")
    return name


@pytest.fixture(scope="session")
def facts(image: str) -> dict[str, Any]:
    """What podman knows of the image."""
    found: dict[str, Any] = inspect_image(image)
    return found


@pytest.fixture(scope="session")
def config(image: str) -> dict[str, Any]:
    """The image's own configuration, as a registry would give it out; podman leaves some of it away."""
    command = ["skopeo", "inspect", "--config", "--raw", f"containers-storage:{image}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)["config"]
    return found


@pytest.fixture(scope="module")
def still(image: str) -> Iterator[Container]:
    """A container in which nothing runs, to look around in."""
    with container(image, "infinity", options=("--entrypoint=/usr/bin/sleep",), ports=()) as found:
        yield found


@pytest.fixture(scope="module")
def host(still: Container) -> Host:
    """testinfra's view of that container."""
    return testinfra.get_host(f"podman://{still.name}")


@pytest.fixture(scope="session")
def tiny_mount(tiny_model: Path) -> str:
    """The option that puts the tiny model at /models/tiny.gguf, readable by any user."""
    tiny_model.chmod(0o644)
    return f"--volume={tiny_model}:/models/tiny.gguf:ro"


@pytest.fixture
def write_config(tmp_path: Path) -> Any:
    """A function that writes a configuration and returns the option that mounts it where the image looks."""

    def write(settings: dict[str, Any] | str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings, indent=1), encoding="utf-8")
        path.chmod(0o644)
        return f"--volume={path}:/etc/llama-gguf/config.yaml:ro"

    return write
