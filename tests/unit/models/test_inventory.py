"""Where the files of a model are, or will be."""

from __future__ import annotations

from pathlib import Path

from llama_gguf.models.inventory import file_status
from llama_gguf.models.source import plan_sources
from support.model_box import locations_for, settings_for


def test_where_files_will_be(tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    models = locations.models_dir
    cases: list[tuple[dict[str, object], Path]] = [
        ({"path": "/x/a.gguf"}, Path("/x/a.gguf")),
        ({"name": "n.gguf"}, models / "n.gguf"),
        ({"hf": {"repo": "o/n", "file": "f.gguf"}}, models / "huggingface/models--o--n/snapshots/main/f.gguf"),
    ]
    for model, place in cases:
        found = file_status(plan_sources(settings_for(tmp_path, model).model, locations, {}).model)
        assert (found.path, found.present, found.bytes_on_disk) == (place, False, 0)
    url = file_status(plan_sources(settings_for(tmp_path, {"url": "https://h/u.gguf"}).model, locations, {}).model)
    assert (url.path.name, url.present) == ("u.gguf", False)
