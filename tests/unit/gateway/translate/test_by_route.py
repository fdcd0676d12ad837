"""Only the answers that need it are translated."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.gateway.translate.by_route import find_translation
from llama_gguf.gateway.translate.completion_logprobs import CompletionLogprobs
from llama_gguf.gateway.translate.responses import ResponsesTranslation


@pytest.mark.parametrize(
    ("group", "fields", "found"),
    [
        ("responses", {}, ResponsesTranslation),
        ("completions", {"logprobs": 1}, CompletionLogprobs),
        ("completions", {"n_probs": 1}, CompletionLogprobs),
        ("completions", {"logprobs": 0}, type(None)),
        ("completions", {}, type(None)),
        ("chat", {"logprobs": True}, type(None)),
    ],
)
def test_the_translation_of_a_request(group: str, fields: dict[str, Any], found: type) -> None:
    assert type(find_translation(group, fields, "m", "r", 0)) is found
