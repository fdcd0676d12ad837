"""Which files a configuration uses: those on disk, all parts of them, and those that a download will resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_gguf.models.shelf.scan import scan
from llama_gguf.models.shelf.use import Uses, uses_of
from llama_gguf.models.source import AtUrl, plan_sources
from llama_gguf.settings import parse
from llama_gguf.settings.one_model import each_model
from support.model_box import locations_for, settings_for

COMMIT = "a" * 40


def uses(root: Path, **sections: Any) -> Uses:
    paths = {"data_dir": str(root), "run_dir": str(root / "run")}
    return uses_of(each_model(parse({"paths": paths, **sections})), locations_for(root), {})


def test_parts_and_companions_and_every_model_of_a_file(tmp_path: Path) -> None:
    models = locations_for(tmp_path).models_dir
    for name in ("s-00001-of-00002.gguf", "s-00002-of-00002.gguf", "p.gguf", "other.gguf"):
        (models / name).write_bytes(b"GGUF")
    found = uses(
        tmp_path,
        models={
            "one": {"name": "s-00001-of-00002.gguf", "mmproj": {"name": "p.gguf"}},
            "two": {"path": str(models / "p.gguf")},
        },
    )
    by_label = {one.label: found.of(one) for one in scan(models, models / "huggingface")}
    assert by_label == {
        "s-00001-of-00002.gguf": ("models.one",),
        "s-00002-of-00002.gguf": ("models.one",),
        "p.gguf": ("models.one", "models.two"),
        "other.gguf": (),
    }


def test_downloads_to_be_resumed(tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    url = "https://x.test/m-00001-of-00002.gguf"
    origin = plan_sources(settings_for(tmp_path, {"url": url}).model, locations, {}).model.origin
    assert isinstance(origin, AtUrl)
    origin.path.parent.mkdir(parents=True)
    origin.path.with_name("m-00002-of-00002.gguf.part").write_bytes(b"x")
    for repo in ("models--A--b", "models--a--c"):
        (locations.models_dir / "huggingface" / repo / "blobs").mkdir(parents=True)
        (locations.models_dir / "huggingface" / repo / "blobs" / "cafe.part").write_bytes(b"x")
    hub = {"hf": {"repo": "a/b", "file": "m.gguf"}}
    found = uses(tmp_path, models={"hub": hub, "url": {"url": url}})
    stored = scan(locations.models_dir, locations.models_dir / "huggingface")
    assert {one.label: found.of(one) for one in stored} == {
        f"url/{origin.path.parent.name}/m-00002-of-00002.gguf": ("models.url",),
        "A/b/cafe": ("models.hub",),
        "a/c/cafe": (),
    }
    assert uses(tmp_path, model=hub).of(stored[1]) == ("model",)
