"""What the gateway needs beside its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.errors import LaunchError
from llama_gguf.gateway.inputs import read_runtime_inputs
from support.gateway_box import make_box


def test_what_is_found_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(tmp_path, {"limits": {"store_password_env": "STORE_PASSWORD"}})
    found = read_runtime_inputs(box.shot, {"STORE_PASSWORD": "s3cret"})
    assert found.engine_keys["engine"].startswith("engine-key")
    assert found.store_password == "s3cret"
    assert read_runtime_inputs(box.shot, {"STORE_PASSWORD": '"s3cret"\r'}).store_password == "s3cret"
    monkeypatch.setattr("importlib.metadata.version", lambda name: (_ for _ in ()).throw(importlib_not_found(name)))
    assert read_runtime_inputs(box.shot, {}).engine_version == "unknown"
    box.shot.locations.run.engine_key.unlink()
    with pytest.raises(LaunchError, match="engine's key"):
        read_runtime_inputs(box.shot, {})


def importlib_not_found(name: str) -> Exception:
    """Return what importlib.metadata raises for a package that is not there."""
    import importlib.metadata

    return importlib.metadata.PackageNotFoundError(name)
