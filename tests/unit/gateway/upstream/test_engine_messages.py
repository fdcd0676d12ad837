"""Messages of the pinned llama-server, as it sends them, and what its clients read instead."""

from __future__ import annotations

import re

import pytest

from llama_gguf.gateway.upstream.engine_messages import find_meaning, shows_internals

TEMPLATE = (
    "Unable to generate parser for this template. Automatic parser generation failed: \n------------\n"
    "While executing CallExpression at line 1, column 96 in source:\n...op.index0 %% 2 == 0) %%}{{ raise_exc\n   ^\n%s"
)
KNOWN = [
    (
        "input (1201 tokens) is too large to process. increase the physical batch size (current batch size: 64)",
        "input",
        "An input has 1201 tokens, and this server takes at most 64 in one input (engine.batch_size).",
    ),
    (
        TEMPLATE % "Error: Jinja Exception: Conversation roles must alternate user/assistant/...",
        "messages",
        "The model's chat template refuses the messages: Conversation roles must alternate user/assistant/...",
    ),
    (
        TEMPLATE % "Error: Unknown filter",
        "messages",
        "The model's chat template cannot be applied to these messages and tools.",
    ),
    (
        "Automatic parser generation failed: JSON schema error at #: unrecognized type zz",
        None,
        "A JSON schema cannot be used: at #: unrecognized type zz.",
    ),
    (
        '"json_schema": JSON schema conversion failed:\nJSON schema error at #: cannot resolve $ref #/x, x not found',
        None,
        "A JSON schema cannot be used: at #: cannot resolve $ref #/x, x not found.",
    ),
    (
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "messages",
        "The model of this server takes no image input; the operator may have to configure model.mmproj.",
    ),
    ("Field 'n': Value must be between 1 <= value <= 2, but got 9", "n", "`n` must be between 1 and 2."),
    (
        "Field 'temperature': [json.exception.type_error.302] type must be number, but is string",
        "temperature",
        "`temperature` must be number, not string.",
    ),
    ("[json.exception.out_of_range.403] key 'prompt' not found", "prompt", "`prompt` is missing."),
    (
        "Failed to parse messages: [json.exception.out_of_range.403] key 'arguments' not found",
        "arguments",
        "`arguments` is missing.",
    ),
    (
        'Failed to parse tools: Missing tool function: {"type":"function","secret":1}; tools = [1]',
        "tools",
        "`tools` cannot be used: Missing tool function.",
    ),
    (
        'Failed to parse tools: Expected \'tools\' to be an array, got "x"; tools = "x"',
        "tools",
        "`tools` cannot be used: Expected 'tools' to be an array.",
    ),
    ("'messages' is required", "messages", "`messages` is missing."),
    (
        '"prompt" elements must be a string, a list of tokens, a JSON object containing a prompt string, or ...',
        "prompt",
        "The prompt must be a string, a list of token ids, or a list of such.",
    ),
    ('"input_suffix" is required', "input_suffix", "`input_suffix` is required."),
    (
        "vector::_M_range_check: __n (which is 99999999) >= this->size() (which is 264)",
        None,
        "A token id is not in the model's vocabulary.",
    ),
    ("Prompt contains invalid tokens", None, "A token id is not in the model's vocabulary."),
    (
        "got exception: the grammar is too ambiguous",
        None,
        "The grammar or schema allows too many ways to read one text; make its alternatives begin differently.",
    ),
    (
        "got exception: Unexpected empty grammar stack after accepting piece: \x16 (30)",
        None,
        "No token of the model fits what the request demands (grammar, schema, logit_bias).",
    ),
    (
        "Failed to initialize samplers: failed to parse grammar",
        "grammar",
        "The grammar cannot be parsed.",
    ),
    (
        "[json.exception.type_error.302] type must be string, but is number",
        None,
        "A value in the body must be string, but is number.",
    ),
    ("[json.exception.parse_error.101] x", None, "A value in the body has a type or form that is not allowed there."),
]


ADVICE = [
    ("This server does not support embeddings. Start it with `--embeddings`", "engine.task: embed"),
    ("This server does not support reranking. Start it with `--reranking`", "engine.task: rerank"),
    ("This server does not support slots action. Start it with `--slot-save-path`", "--slot-save-path"),
    ("This server does not support changing global properties. Start it with `--props`", "--props"),
]


@pytest.mark.parametrize(("message", "setting"), ADVICE)
def test_what_the_operator_can_set_is_named_as_a_setting(message: str, setting: str) -> None:
    meaning = find_meaning(message)
    assert meaning is not None
    assert (meaning.code, meaning.param) == ("not_supported", None)
    assert setting in meaning.message
    assert "engine." in meaning.message


@pytest.mark.parametrize(("message", "param", "told"), KNOWN)
def test_the_clients_mistakes(message: str, param: str | None, told: str) -> None:
    meaning = find_meaning(message)
    assert meaning is not None
    assert (meaning.param, meaning.message) == (param, told)
    assert not shows_internals(meaning.message)
    assert not re.search(r"json\.exception|secret|raise_exc", meaning.message)


@pytest.mark.parametrize(
    "message",
    ["got exception: decode failed", "Loading model", "", "context shift is disabled", "failed to process mtmd chunk"],
)
def test_what_is_not_known_is_not_called_a_mistake(message: str) -> None:
    assert find_meaning(message) is None


@pytest.mark.parametrize("message", ["std::bad_alloc", "vector::_M_fill", "basic_string::substr", "at 0x7f8a846ffa60"])
def test_internals_are_seen(message: str) -> None:
    assert shows_internals(message)


def test_a_message_of_a_megabyte_takes_no_time() -> None:
    """Every repetition in the patterns is bounded, or runs over the text once."""
    for text in (
        "input (1",
        "Jinja Exception: ",
        "JSON schema error at ",
        "This server does not support ",
        "Field 'a': type must be ",
        "'" * 9,
    ):
        meaning = find_meaning((text * 120_000)[:1_000_000])
        assert meaning is None or len(meaning.message) < 1000
