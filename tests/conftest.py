"""Fixtures every test may use: the real engine binary and the models it runs on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from image.engine import starter

from support.tiny_model import write_tiny_model

# How long a test takes says something about the machine and what else it does, never about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the engine or the starter model, so that no test has to remember it."""
    for item in items:
        used = getattr(item, "fixturenames", ())
        if "engine_binary" in used:
            item.add_marker(pytest.mark.engine)
        if "starter_model" in used:
            item.add_marker(pytest.mark.starter)


@pytest.fixture(scope="session")
def engine_binary() -> Path:
    """The real llama-server that `make engine` put into the virtual environment."""
    binary = Path(os.environ.get("LLAMA_GGUF_TEST_ENGINE") or _beside_site_packages())
    if not binary.is_file():
        pytest.fail(f"{binary} is missing: run `make engine`")
    return binary


def _beside_site_packages() -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(sys.prefix) / "lib" / version / "site-packages" / "bin" / "llama-server"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of half a megabyte with a byte vocabulary and a training context of 2048 tokens."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 150 layers and a long context: slow enough to be interrupted in the middle of an answer."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "slow.gguf", layers=150, context=131_072)


@pytest.fixture(scope="session")
def tiny_rerank_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a classification head, for the rerank routes."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-rerank.gguf", rerank=True)


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The real starter model, SmolLM2-135M-Instruct, that `make starter-model` put into the user's cache."""
    path = starter.default_path(os.environ)
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `make starter-model`")
    return path
