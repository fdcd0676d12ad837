"""A header -> what the model can serve: what `settings.checks.model_facts` checks the configuration against."""

from __future__ import annotations

from llama_gguf.models.gguf.header import Header
from llama_gguf.settings.checks.model_facts import ModelFacts

_NO_POOLING, _RANK_POOLING = 0, 4
"""Values of `pooling_type` in a GGUF file."""
_TEMPLATES = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
_TEKKEN_LAYERS = 40
_CACHE_BLOCK = 32
_ENCODERS = frozenset(
    {
        *("bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
        *("nomic-bert", "nomic-bert-moe"),
    }
)
"""llama.cpp gives their contexts no memory (llama_model::create_memory), so they compute no next token."""


def facts_of(header: Header) -> ModelFacts:
    """Return the model's capabilities, according to `header`."""
    pooling = header.number(f"{header.architecture}.pooling_type")
    return ModelFacts(
        training_context=header.number(f"{header.architecture}.context_length"),
        pools=pooling != _NO_POOLING,
        reranks=pooling == _RANK_POOLING or any(tensor.name.startswith("cls.") for tensor in header.tensors),
        chats=has_chat_template(header),
        generates=header.architecture not in _ENCODERS,
        has_experts=header.number(f"{header.architecture}.expert_count") > 0,
        has_mtp_layers=header.number(f"{header.architecture}.nextn_predict_layers") > 0,
    )


def has_quantisable_cache(header: Header) -> bool:
    """Return whether llama.cpp can quantise the cache, which it does in blocks of a head's row."""
    name = header.architecture
    heads = header.number(f"{name}.attention.head_count")
    width = header.number(f"{name}.embedding_length") // heads if heads else 0
    rows = [header.number(f"{name}.attention.{part}_length", width) for part in ("key", "value")]
    return all(row % _CACHE_BLOCK == 0 for row in rows)


def has_chat_template(header: Header) -> bool:
    """Return whether llama-server finds a chat template; without one it uses ChatML for any model."""
    if any(header.text(key).strip() for key in _TEMPLATES):
        return True
    # llama.cpp has a built-in template for this one model, which was published without (llama_model_chat_template).
    layers = header.number(f"{header.architecture}.block_count")
    return header.text("tokenizer.ggml.pre") == "tekken" and layers == _TEKKEN_LAYERS
