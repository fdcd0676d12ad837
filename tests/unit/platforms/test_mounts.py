"""Paths of a configuration against the directories that a spec has."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.container import RenderRequest, prepare
from llama_gguf.platforms.mounts import Mounts, check_mounts
from support.rendering import HF, settings

VOLUME = Mounts("spec.json", persistent=("/volume",))
BOOTSTRAP: dict[str, Any] = {"auth": {"bootstrap": {"env": "KEY"}}}


def found(mounts: Mounts, **sections: Any) -> list[tuple[str, str]]:
    """Return code and setting of what `check_mounts` reports."""
    launch = prepare(settings(**BOOTSTRAP, **sections), RenderRequest(), Findings("Somewhere"), {})
    findings = Findings("Somewhere")
    check_mounts(launch, mounts, findings)
    assert all("spec.json" in problem.message for problem in findings.problems)
    return [(problem.code, problem.path) for problem in findings.problems]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, []),
        ({"model": {"path": "/volume/m.gguf"}}, []),
        ({"model": {"path": "/volumes/m.gguf"}}, [("path-in-image", "model.path")]),
        ({"model": {"name": "m"}}, [("path-in-image", "model.name")]),
        ({"model": {**HF, "draft": {"name": "d"}}}, [("path-in-image", "model.draft.name")]),
        ({"model": {"name": "m"}, "paths": {"models_dir": "/volume/models"}}, []),
        ({"model": HF, "paths": {"data_dir": "/volume/data"}}, []),
        ({"model": HF, "paths": {"data_dir": "/elsewhere"}}, [("path-not-writable", "paths.data_dir")]),
        ({"model": HF, "paths": {"data_dir": "/data/below"}}, []),
    ],
)
def test_what_is_on_no_volume_and_what_cannot_be_written(
    sections: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert found(VOLUME, **sections) == expected


def test_files_of_every_model_are_looked_for() -> None:
    models = {"a": {"path": "/elsewhere/m.gguf"}, "b": {"name": "m"}, "c": {"path": "/volume/c.gguf"}, "d": HF}
    expected = [("path-in-image", "models.a.path"), ("path-in-image", "models.b.name")]
    assert found(VOLUME, model={}, models=models) == expected


def test_an_ephemeral_directory_keeps_no_model() -> None:
    mounts = Mounts("spec.json", ephemeral=("/data",))
    assert found(mounts, model={"path": "/data/m.gguf"}) == [("path-in-image", "model.path")]
