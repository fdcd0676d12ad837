"""Files on disk: found, checked, and errors that say what is there instead."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.inventory import all_wanted, expected_files, file_status
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.models.resolve import resolve_with_retries
from llama_gguf.models.source import plan_sources
from support.file_server import Remote, file_server
from support.model_box import Remembering, failure, locations_for, run, settings_for
from support.silent import Silent


def write_other(path: Path, architecture: str, **text: str) -> Path:
    """Write a GGUF file that is no language model."""
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in text.items():
        writer.add_string(key.replace("__", "."), value)
    writer.add_uint32(f"{architecture}.block_count", 2)
    writer.add_tensor("blk.1.nextn.eh_proj.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_everything_at_once(models: Path, tmp_path: Path) -> None:
    mmproj = write_other(models / "mmproj.gguf", "clip")
    adapter = write_other(models / "l.gguf", "llama", general__type="adapter")
    template = tmp_path / "t.jinja"
    template.write_text("x")
    sha256 = hashlib.sha256((models / "Tiny-Q8_0.gguf").read_bytes()).hexdigest()
    model: dict[str, object] = {
        "name": "Tiny-Q8_0",
        "sha256": sha256,
        "mmproj": {"path": str(mmproj)},
        "draft": {"name": "Tiny-Q8_0.gguf"},
        "lora": [{"name": "l.gguf", "scale": 0.5}],
        "chat_template": str(template),
    }
    expected = ModelFiles(
        model=models / "Tiny-Q8_0.gguf",
        mmproj=mmproj,
        draft=models / "Tiny-Q8_0.gguf",
        lora=(LoraFile(adapter, 0.5),),
        chat_template=template,
    )
    assert run(tmp_path, model) == expected
    settings = settings_for(tmp_path, model)
    sources = plan_sources(settings.model, locations_for(tmp_path), {})
    assert expected_files(settings.model, sources) == expected
    places = [file_status(wanted) for wanted in all_wanted(sources)]
    assert [place.present for place in places] == [True] * 4
    assert places[0].bytes_on_disk == (models / "Tiny-Q8_0.gguf").stat().st_size


def test_a_draft_that_says_how_to_speculate(models: Path, tmp_path: Path) -> None:
    write_other(models / "mtp.gguf", "glm4moe")
    assert run(tmp_path, {"name": "Tiny-Q8_0", "draft": {"name": "mtp.gguf"}}).draft_sets_spec_type


@pytest.mark.starter
def test_a_draft_that_speaks_another_language(models: Path, tmp_path: Path, starter_model: Path) -> None:
    wrong = failure(tmp_path, {"name": "Tiny-Q8_0", "draft": {"path": str(starter_model)}})
    assert wrong.message.endswith("has another vocabulary (gpt2, 49152 tokens) than the model (llama, 264)")


def test_the_wrong_kind_of_file(models: Path, tmp_path: Path) -> None:
    write_other(models / "mmproj.gguf", "clip")
    write_other(models / "l.gguf", "llama", general__type="adapter")
    wrong = failure(tmp_path, {"name": "mmproj.gguf"})
    assert wrong.message.endswith("is a multimodal projector, not a language model")
    cases: list[tuple[dict[str, object], str]] = [
        ({"mmproj": {"name": "Tiny-Q8_0"}}, "is a language model, not a multimodal projector"),
        ({"draft": {"name": "l"}}, "is a LoRA adapter, not a language model"),
        ({"lora": [{"name": "Tiny-Q8_0"}]}, "is a language model, not a LoRA adapter"),
    ]
    for model, message in cases:
        assert failure(tmp_path, {"name": "Tiny-Q8_0"} | model).message.endswith(message)
    (models / "x.gguf").write_bytes(b"PK\x03\x04" * 20)
    assert failure(tmp_path, {"name": "x"}).code == "model_not_gguf"


def test_wrong_digest(models: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, {"name": "Tiny-Q8_0", "sha256": "0" * 64}).code == "checksum_mismatch"


def test_patience(tmp_path: Path, tiny_model: Path) -> None:
    pauses: list[float] = []
    with file_server() as site:
        site.files["/t.gguf"] = Remote(tiny_model.read_bytes())
        site.statuses = [503, 500, 429]
        model = settings_for(tmp_path, {"url": site.url("/t.gguf")}).model
        reporter = Remembering()
        files = resolve_with_retries(model, locations_for(tmp_path), {}, reporter, sleep=pauses.append)
    assert files.model.is_file()
    assert [round(pause / expected) for pause, expected in zip(pauses, (2, 4, 8), strict=True)] == [1, 1, 1]
    assert any("responded with 503; attempt 2 of 8 in 2 s" in detail for _, detail in reporter.phases)


def test_patience_ends(tmp_path: Path) -> None:
    pauses: list[float] = []
    model = settings_for(tmp_path, {"url": "http://127.0.0.1:9/t.gguf"}).model
    with pytest.raises(ModelError) as caught:
        resolve_with_retries(model, locations_for(tmp_path), {}, Silent(), sleep=pauses.append, attempts=7)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert len(pauses) == 6
    assert max(pauses) <= 72


def test_no_patience_with_what_cannot_get_better(tmp_path: Path) -> None:
    model = settings_for(tmp_path, {"path": "/nowhere"}).model
    with pytest.raises(ModelError):
        resolve_with_retries(model, locations_for(tmp_path), {}, Silent(), sleep=lambda _: pytest.fail("slept"))
