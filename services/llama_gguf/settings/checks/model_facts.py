"""What a model's file says of itself, held against what it is to be served for. Pure.

Lives apart from `machine`, because the engine's program asks the same and reads its settings without pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.errors import Problem

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings

_CHAT_ROUTES = {"chat", "responses", "messages"}
"""Groups of routes that write a chat with the model's template."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the header of the model's file says."""

    training_context: int  # 0: it does not say
    pools: bool  # it says how to make one vector of many
    reranks: bool  # it has what reranking takes
    chats: bool  # it says how to write a chat


def model_problems(settings: Settings, facts: ModelFacts, *, context_is_default: bool = False) -> list[Problem]:
    """Return the warnings about serving a model of these facts.

    `context_is_default` says that nobody has set `engine.context_per_slot`.
    """
    return [*_context(settings, facts, is_default=context_is_default), *_task(settings, facts)]


def _context(settings: Settings, facts: ModelFacts, *, is_default: bool) -> Iterator[Problem]:
    engine, trained = settings.engine, facts.training_context
    if trained and engine.context_per_slot > trained:
        default = " (the default)" if is_default else ""
        message = (
            f"engine.context_per_slot: {engine.context_per_slot}{default} is more than the {trained} tokens the model "
            f"was trained with ({engine.slots} slots, {engine.context_per_slot * engine.slots} tokens of memory in all)"
        )
        hint = "answers degrade beyond it, unless the model is made for RoPE scaling"
        yield Problem("context-over-training", message, "engine.context_per_slot", hint=hint, severity="warning")


def _task(settings: Settings, facts: ModelFacts) -> Iterator[Problem]:
    task, pooling = settings.engine.task, settings.engine.pooling
    if task == "embed" and pooling == "auto" and not facts.pools:
        message = "engine.pooling: the model's file does not say how to pool, so /v1/embeddings would refuse everything"
        hint = "set engine.pooling to what the model's card names: mean, cls or last"
        yield Problem("no-pooling", message, "engine.pooling", hint=hint, severity="warning")
    elif task == "rerank" and not facts.reranks:
        message = "engine.task: the model's file has no head for reranking, so its scores would mean nothing"
        yield Problem("no-reranker", message, "engine.task", hint="serve a reranker's file", severity="warning")
    elif (
        task == "generate"
        and not (facts.chats or settings.model.chat_template)
        and _CHAT_ROUTES & set(settings.gateway.routes)
    ):
        message = "model.chat_template: not set, and the model has no chat template: chat answers will be poor"
        hint = "set model.chat_template to the template from the model's card, or serve its instruct version"
        yield Problem("no-chat-template", message, "model.chat_template", hint=hint, severity="warning")
