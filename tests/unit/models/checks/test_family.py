"""Drafts and adapters of other models."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.checks.family import check_adapter, check_draft, sets_spec_type
from llama_gguf.models.gguf.header import Header, read_header
from support.companion_files import write_adapter
from support.tiny_encoder import write_tiny_encoder
from support.tiny_model import write_tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Header:
    """Return the header of a tiny model."""
    return read_header(write_tiny_model(tmp_path / "model.gguf"))


def test_drafts(model: Header, tmp_path: Path) -> None:
    check_draft(model, read_header(write_tiny_model(tmp_path / "small.gguf", layers=1)), "model.draft")
    stranger = read_header(write_tiny_encoder(tmp_path / "bert.gguf"))
    assert not sets_spec_type(stranger)
    with pytest.raises(ModelError) as caught:
        check_draft(model, stranger, "model.draft")
    assert caught.value.code == "model_unrelated"
    assert caught.value.message == (
        "model.draft: bert.gguf has another vocabulary (bert, 57 tokens) than the model (llama, 264)"
    )


def test_adapters(model: Header, tmp_path: Path) -> None:
    check_adapter(model, read_header(write_adapter(tmp_path / "a.gguf", "llama")), "model.lora[0]")
    with pytest.raises(ModelError) as caught:
        check_adapter(model, read_header(write_adapter(tmp_path / "b.gguf", "qwen3")), "model.lora[1]")
    assert caught.value.message == "model.lora[1]: b.gguf is an adapter for a qwen3 model, not for llama"
    with pytest.raises(ModelError, match="a nameless model"):
        check_adapter(model, read_header(write_adapter(tmp_path / "c.gguf", "")), "model.lora[1]")
