"""What a header says of a model's abilities, however odd the file."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from llama_gguf.models.gguf.facts import facts_of, has_chat_template
from llama_gguf.models.gguf.header import Header, Value, read_header


def header(**metadata: Value) -> Header:
    values = {key.replace("__", "."): value for key, value in metadata.items()}
    return Header(Path("/m"), 0, 3, {"general.architecture": "llama", **values}, (), 0)


@pytest.mark.parametrize(
    ("found", "chats"),
    [
        (header(), False),
        (header(tokenizer__chat_template="{{ messages }}"), True),
        (header(tokenizer__chat_template=""), False),
        (header(tokenizer__chat_template=" \n"), False),
        (header(tokenizer__chat_template="x" * 1_000_000), True),
        (header(tokenizer__chat_template=7), False),
        (header(tokenizer__chat_template=True), False),
        (header(tokenizer__chat_template=(1, 2)), False),
        (header(tokenizer__chat_template__tool_use="{{ tools }}"), True),
        (header(tokenizer__chat_template__other="{{ x }}"), False),
        (header(tokenizer__ggml__pre="tekken", llama__block_count=40), True),
        (header(tokenizer__ggml__pre="tekken", llama__block_count=32), False),
    ],
)
def test_chat_templates(found: Header, *, chats: bool) -> None:
    assert has_chat_template(found) is chats
    assert facts_of(found).chats is chats


def test_a_template_of_a_megabyte_in_a_real_file(tmp_path: Path) -> None:
    for name, template in (("big", "{{ messages }}" * 75_000), ("none", "")):
        writer = gguf.GGUFWriter(str(tmp_path / name), "llama")
        writer.add_chat_template(template)
        writer.add_context_length(4096)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        facts = facts_of(read_header(tmp_path / name))
        assert (facts.chats, facts.training_context) == (name == "big", 4096)


def test_experts_and_mtp_layers() -> None:
    plain = facts_of(header())
    assert not plain.has_experts
    assert not plain.has_mtp_layers
    assert facts_of(header(llama__expert_count=8)).has_experts
    assert facts_of(header(llama__nextn_predict_layers=1)).has_mtp_layers
    assert not facts_of(header(llama__nextn_predict_layers="one")).has_mtp_layers


def test_abilities_of_the_tests_own_models(tiny_model: Path, tiny_rerank_model: Path) -> None:
    assert facts_of(read_header(tiny_model)).chats
    assert not facts_of(read_header(tiny_model)).reranks
    assert facts_of(read_header(tiny_rerank_model)).reranks
