"""Writes a random-weight encoder: a model that makes embeddings and cannot generate text."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

DIM, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 128
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tiny_encoder(path: Path) -> Path:
    """Write a BERT with a vocabulary of letters to `path` and return it."""
    random = np.random.default_rng(3)
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("tiny-random-bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    letters = [chr(ord("a") + number) for number in range(26)]
    tokens = [*SPECIAL, *(f"\u2581{letter}" for letter in letters), *letters]
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(np.float32))

    def linear(name: str, *shape: int) -> None:
        tensor(f"{name}.weight", *shape)
        tensor(f"{name}.bias", shape[0])

    tensor("token_embd.weight", len(tokens), DIM)
    tensor("position_embd.weight", CONTEXT, DIM)
    tensor("token_types.weight", 2, DIM)
    linear("token_embd_norm", DIM)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            linear(f"{prefix}.{name}", DIM, DIM)
        for name in ("attn_output_norm", "layer_output_norm"):
            linear(f"{prefix}.{name}", DIM)
        linear(f"{prefix}.ffn_up", FEED_FORWARD, DIM)
        linear(f"{prefix}.ffn_down", DIM, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
