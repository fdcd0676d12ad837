"""Writes the random-weight models that most end-to-end tests run on.

Half a megabyte, ready in half a second and about 1000 tokens/s on the real llama-server. The text is noise, the path
it takes is real. Deterministic: the same arguments give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

DIM, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 128
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<PRE>", "<SUF>", "<MID>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(
    path: Path,
    *,
    context: int = 2048,
    layers: int = LAYERS,
    seed: int = 7,
    rerank: bool = False,
    chat_template: str = CHAT_TEMPLATE,
) -> Path:
    """Write a random model with a byte vocabulary to `path` and return it.

    `context` is the training context in tokens. More `layers` make it slower: 2 give thousands of tokens/s, 200 some
    tens. `rerank` makes it a qwen3 (the architecture llama.cpp reranks with) that has a one-output head.
    An empty `chat_template` leaves it out, as base models do.
    """
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "qwen3" if rerank else "llama")
    writer.add_name("tiny-random-llama")
    writer.add_context_length(context)
    writer.add_embedding_length(DIM)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    control = gguf.TokenType.CONTROL
    kinds = [gguf.TokenType.UNKNOWN, *([control] * (len(SPECIAL) - 1)), *([gguf.TokenType.BYTE] * 256)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_uint32("tokenizer.ggml.fim_pre_token_id", 5)
    writer.add_uint32("tokenizer.ggml.fim_suf_token_id", 6)
    writer.add_uint32("tokenizer.ggml.fim_mid_token_id", 7)
    # Grammars (structured output, tools) work on text as it is, without a blank put in front of it.
    writer.add_add_space_prefix(False)
    if chat_template:
        writer.add_chat_template(chat_template)
    if rerank:
        writer.add_key_length(DIM // HEADS)
        writer.add_value_length(DIM // HEADS)
        writer.add_pooling_type(gguf.PoolingType.RANK)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(np.float32))

    vocabulary = len(tokens)
    tensor("token_embd.weight", vocabulary, DIM)
    # Control and unknown tokens get no logits to speak of, so that generation runs to its token limit.
    output = (random.standard_normal((vocabulary, DIM)) * 0.05).astype(np.float32)
    output[: len(SPECIAL)] = 0.0
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(DIM, dtype=np.float32))
    if rerank:
        tensor("cls.output.weight", 1, DIM)
    for layer in range(layers):
        prefix = f"blk.{layer}"
        writer.add_tensor(f"{prefix}.attn_norm.weight", np.ones(DIM, dtype=np.float32))
        writer.add_tensor(f"{prefix}.ffn_norm.weight", np.ones(DIM, dtype=np.float32))
        if rerank:
            writer.add_tensor(f"{prefix}.attn_q_norm.weight", np.ones(DIM // HEADS, dtype=np.float32))
            writer.add_tensor(f"{prefix}.attn_k_norm.weight", np.ones(DIM // HEADS, dtype=np.float32))
        tensor(f"{prefix}.attn_q.weight", DIM, DIM)
        tensor(f"{prefix}.attn_k.weight", DIM // 2, DIM)
        tensor(f"{prefix}.attn_v.weight", DIM // 2, DIM)
        tensor(f"{prefix}.attn_output.weight", DIM, DIM)
        tensor(f"{prefix}.ffn_gate.weight", FEED_FORWARD, DIM)
        tensor(f"{prefix}.ffn_up.weight", FEED_FORWARD, DIM)
        tensor(f"{prefix}.ffn_down.weight", DIM, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
