"""Whether a draft model and adapters belong to the model they are configured with, judged by their headers. Pure."""

from __future__ import annotations

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import Header

_MAX_VOCABULARY_DIFFERENCE = 128  # llama.cpp's own limit


def check_draft(model: Header, draft: Header, setting: str) -> None:
    """Raise unless draft and model have the same vocabulary: llama-server would only log it and drop the draft."""
    if sets_spec_type(draft):
        return  # made for its model, whose vocabulary it uses
    ours, theirs = read_architecture(model).vocabulary, read_architecture(draft).vocabulary
    kinds = [header.text("tokenizer.ggml.model") for header in (model, draft)]
    if kinds[0] != kinds[1] or abs(ours - theirs) > _MAX_VOCABULARY_DIFFERENCE:
        raise ModelError(
            f"{setting}: {draft.path.name} has another vocabulary ({kinds[1]}, {theirs} tokens) than the model "
            f"({kinds[0]}, {ours})",
            code="model_unrelated",
            hint="use a small model of the same family as the draft",
        )


def check_adapter(model: Header, adapter: Header, setting: str) -> None:
    """Raise unless the adapter was made for a model of this architecture."""
    ours, theirs = model.architecture, adapter.architecture
    if ours != theirs:
        raise ModelError(
            f"{setting}: {adapter.path.name} is an adapter for a {theirs or 'nameless'} model, not for {ours}",
            code="model_unrelated",
            hint="use an adapter that was trained on this model",
        )


def sets_spec_type(draft: Header) -> bool:
    """Return whether llama-server derives --spec-type from this draft; it does so only for these."""
    last_layer = draft.number(f"{draft.architecture}.block_count") - 1
    return draft.architecture == "dflash" or f"blk.{last_layer}.nextn.eh_proj.weight" in draft.by_name
