"""Every field of every route, as data: what llama-server and the API's own clients know. Any other is left out.

Source: make_llama_cmpl_schema (tools/server/server-schema.cpp) and all that the handlers in tools/server read of a
body, of the llama.cpp that is pinned; `tests/contract/test_request_fields.py` compares them. llama-server takes its own
fields on every route that generates, and most it means for itself: with `grammar_triggers` one request ends it, with
`id_slot` one reads another's cache. What an API defines and the engine ignores is listed where that does no harm.
"""

from __future__ import annotations

from llama_gguf.gateway.request.field import (
    INTERNAL,
    Field,
    FieldTable,
    boolean,
    checked_elsewhere,
    integer,
    listed,
    mapping,
    number,
    text,
    texts,
)

_MAX_HISTORY = 65_536  # tokens that penalties look back: the engine allocates them
_MAX_PROBABILITIES = 100
_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 1024
_MAX_LORA = 32

_SAMPLING: dict[str, Field] = {
    "temperature": number(0, 1000),
    "dynatemp_range": number(0, 1000),
    "dynatemp_exponent": number(),
    "top_k": integer(-1),
    "top_p": number(0, 1),
    "min_p": number(0, 1),
    "top_n_sigma": number(),
    "typical_p": number(0, 1),
    "xtc_probability": number(0, 1),
    "xtc_threshold": number(0, 1),
    "repeat_last_n": integer(-1, _MAX_HISTORY),
    "repeat_penalty": number(),
    "frequency_penalty": number(),
    "presence_penalty": number(),
    "dry_multiplier": number(),
    "dry_base": number(),
    "dry_allowed_length": integer(0),
    "dry_penalty_last_n": integer(-1, _MAX_HISTORY),
    "dry_sequence_breakers": listed(64, str),
    "mirostat": integer(0, 2),
    "mirostat_tau": number(),
    "mirostat_eta": number(),
    "adaptive_target": number(-1e9, 1),
    "adaptive_decay": number(0, 0.99),
    "seed": Field("a whole number", (int,), -(2**63), 2**64 - 1),
    "min_keep": integer(0, 1000),
    "n_probs": integer(0, _MAX_PROBABILITIES),
    "post_sampling_probs": boolean(),
    "samplers": texts(64),
    "logit_bias": Field("an object or a list", (dict, list), max_length=1024),
    "ignore_eos": boolean(),
}
_GENERATION: dict[str, Field] = {
    "n_predict": integer(-1),
    "max_tokens": integer(-1),
    "max_completion_tokens": integer(-1),
    "n": integer(1),
    "n_cmpl": integer(1),
    "stream": boolean(),
    "stream_options": mapping(16),
    "stop": texts(_MAX_STOP_CHARACTERS),
    "n_keep": integer(-1),
    "n_discard": integer(0),
    "n_indent": integer(0),
    "n_cache_reuse": integer(0),
    "t_max_predict_ms": integer(-1),
    "cache_prompt": boolean(),
    "return_tokens": boolean(),
    "return_progress": boolean(),
    "timings_per_token": boolean(),
    "sse_ping_interval": integer(-1, 3600),
    "grammar": text(65_536),
    "json_schema": checked_elsewhere(),
    "response_format": checked_elsewhere(),
    "lora": listed(_MAX_LORA, dict),
    # Of the engine's own state and workings: for those who may see and change both anyway.
    "verbose": boolean("admin"),
    "response_fields": listed(64, str, access="admin"),
    "backend_sampling": boolean("admin"),
}
# What llama-server tells itself by way of the body. Some end or hang it, some lead to others' data.
_INTERNAL_NAMES = (
    *("grammar_lazy", "grammar_triggers", "grammar_type", "chat_format", "chat_parser", "parse_tool_calls"),
    *("generation_prompt", "preserved_tokens", "message_delimiters", "reasoning_control", "id_slot", "id_task"),
    *("reasoning_budget_start_tag", "reasoning_budget_end_tag", "reasoning_budget_end_tags", "reasoning_in_content"),
    *("speculative.n_max", "speculative.n_min", "speculative.p_min", "speculative.type", "speculative.ngram_size_n"),
    *("speculative.ngram_size_m", "speculative.ngram_min_hits", "__verbose", "__metadata_user_id", "prompt_tokens"),
)
_INTERNAL: dict[str, Field] = dict.fromkeys(_INTERNAL_NAMES, INTERNAL)
_ENGINE = {**_SAMPLING, **_GENERATION, **_INTERNAL}

_MODEL = {"model": checked_elsewhere()}
# Of OpenAI's API, for its own bookkeeping and speed; no answer is another for want of them.
_BOOKKEEPING: dict[str, Field] = {
    "user": text(),
    "metadata": mapping(),
    "store": boolean(),
    "service_tier": text(),
    "safety_identifier": text(),
    "prompt_cache_key": text(),
    "prompt_cache_retention": text(),
}
_THINKING: dict[str, Field] = {
    "reasoning_format": text(32, "none", "auto", "deepseek", "deepseek-legacy"),
    "reasoning_budget_tokens": integer(-1),
    "thinking_budget_tokens": integer(-1),
    "reasoning_budget_message": text(),
    "chat_template_kwargs": mapping(64),
    "add_generation_prompt": boolean(),
    "continue_final_message": Field("a boolean or a string", (bool, str), max_length=32),
}
_TOOLS: dict[str, Field] = {
    "tools": checked_elsewhere(),
    "tool_choice": checked_elsewhere(),
    "parallel_tool_calls": boolean(),
}
_CHAT: dict[str, Field] = {
    **_ENGINE,
    **_MODEL,
    **_BOOKKEEPING,
    **_THINKING,
    **_TOOLS,
    "messages": checked_elsewhere(),
    "functions": checked_elsewhere(),
    "function_call": checked_elsewhere(),
    "reasoning_effort": text(32),
    "verbosity": text(32),
    "logprobs": boolean(),
    "top_logprobs": integer(0, _MAX_PROBABILITIES),
    "modalities": listed(16, str),
    "echo": boolean(),
    "prompt": INTERNAL,  # the engine writes it from the messages
}
_COMPLETIONS: dict[str, Field] = {
    **_ENGINE,
    **_MODEL,
    **_BOOKKEEPING,
    "prompt": checked_elsewhere(),
    "logprobs": integer(0, _MAX_PROBABILITIES),
    "echo": boolean(),
    "best_of": integer(1),
    "suffix": text(1_000_000),
    "reasoning_format": _THINKING["reasoning_format"],
    "reasoning_budget_tokens": INTERNAL,  # without a chat's tags it means nothing
    "reasoning_budget_message": INTERNAL,
    "continue_final_message": INTERNAL,
}
_RESPONSES: dict[str, Field] = {
    **_ENGINE,
    **_MODEL,
    **_BOOKKEEPING,
    **_THINKING,
    **_TOOLS,
    "input": checked_elsewhere(),
    "instructions": checked_elsewhere(),
    "previous_response_id": checked_elsewhere(),
    "conversation": checked_elsewhere(),
    "background": checked_elsewhere(),
    "prompt": checked_elsewhere(),
    "text": mapping(8),
    "reasoning": mapping(8),
    "include": listed(32, str),
    "truncation": text(16, "auto", "disabled"),
    "max_output_tokens": integer(-1),
    "max_tool_calls": integer(0),
    "top_logprobs": integer(0, _MAX_PROBABILITIES),
    "reasoning_effort": text(32),
    "logprobs": boolean(),
    "echo": boolean(),
    "messages": INTERNAL,
}
_MESSAGES: dict[str, Field] = {
    **_MODEL,
    **_INTERNAL,
    "messages": checked_elsewhere(),
    "system": checked_elsewhere(),
    "max_tokens": integer(1),
    "stream": boolean(),
    "temperature": number(0, 1000),
    "top_p": number(0, 1),
    "top_k": integer(-1),
    "stop_sequences": texts(_MAX_STOP_CHARACTERS),
    "tools": checked_elsewhere(),
    "tool_choice": checked_elsewhere(),
    "thinking": mapping(8),
    "metadata": mapping(),
    "service_tier": text(),
    "chat_template_kwargs": mapping(64),
}
_EMBEDDINGS: dict[str, Field] = {
    **_MODEL,
    "input": checked_elsewhere(),
    "content": checked_elsewhere(),
    "encoding_format": text(16, "float", "base64"),
    "embd_normalize": integer(-1, 100),
    "dimensions": integer(1),
    "user": text(),
}
_RERANK: dict[str, Field] = {
    **_MODEL,
    "query": text(10_000_000),
    "documents": checked_elsewhere(),
    "texts": checked_elsewhere(),
    "top_n": integer(1),
    "return_text": boolean(),
    "return_documents": boolean(),
    "user": text(),
}
_INFILL: dict[str, Field] = {
    **_ENGINE,
    **_MODEL,
    "input_prefix": text(10_000_000),
    "input_suffix": text(10_000_000),
    "input_extra": listed(1024, dict),
    "prompt": text(10_000_000),
}
_TOKENIZE: dict[str, Field] = {
    **_MODEL,
    "content": checked_elsewhere(),
    "add_special": boolean(),
    "parse_special": boolean(),
    "with_pieces": boolean(),
    "tokens": Field("a list", (list,), max_length=1_000_000, inner=(int,)),
}

TABLES: dict[str, FieldTable] = {
    "chat": _CHAT,
    "completions": _COMPLETIONS,
    "responses": _RESPONSES,
    "messages": _MESSAGES,
    "embeddings": _EMBEDDINGS,
    "rerank": _RERANK,
    "infill": _INFILL,
    "tokenize": _TOKENIZE,
}
"""The fields by route group. `/apply-template` is of the group tokenize and takes the body of a chat."""

ALIASES: tuple[tuple[str, ...], ...] = (
    ("n", "n_cmpl"),
    ("n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens"),
    ("reasoning_budget_tokens", "thinking_budget_tokens"),
    ("input", "content"),
    ("documents", "texts"),
)
"""Names of one thing. Which of them the engine reads differs by route, so they must not contradict each other."""

CONSTRAINTS = ("grammar", "json_schema")
"""Ways to constrain an answer, of which the engine would take one."""
