"""A model's metadata, compared with the task it is configured for. Pure.

Separate from `machine`, because the engine's program checks the same and reads its settings without pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.errors import Problem

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings

_CHAT_ROUTES = {"chat", "responses", "messages"}
"""Groups of routes that use the model's chat template."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The metadata of the model's file."""

    training_context: int  # 0: unknown
    pools: bool  # it has a pooling type
    reranks: bool  # it has a reranking head
    chats: bool  # it has a chat template
    generates: bool = True  # it can produce text, and not only embeddings or scores


def model_problems(settings: Settings, facts: ModelFacts, *, context_is_default: bool = False) -> list[Problem]:
    """Return what is wrong with serving a model with these facts: warnings, and an error if the engine would abort.

    `context_is_default`: `engine.context_per_slot` is not set.
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
        hint = "responses degrade beyond it, unless the model is made for RoPE scaling"
        yield Problem("context-over-training", message, "engine.context_per_slot", hint=hint, severity="warning")


def _task(settings: Settings, facts: ModelFacts) -> Iterator[Problem]:
    task, pooling = settings.engine.task, settings.engine.pooling
    if task == "embed" and pooling == "auto" and not facts.pools:
        message = "engine.pooling: the model's file has no pooling type, so /v1/embeddings would reject every request"
        hint = "set engine.pooling to the type that the model card names: mean, cls or last"
        yield Problem("no-pooling", message, "engine.pooling", hint=hint, severity="warning")
    elif task == "rerank" and not facts.reranks:
        message = "engine.task: the model's file has no reranking head, so its scores would be meaningless"
        yield Problem("no-reranker", message, "engine.task", hint="serve a reranker model", severity="warning")
    elif task == "generate" and not facts.generates:
        message = "model: is an encoder, which cannot generate text"
        hint = "set engine.task to embed (to rerank for a reranker), or serve a model that generates text"
        yield Problem("model-task", message, "model", hint=hint)
    elif (
        task == "generate"
        and not (facts.chats or settings.model.chat_template)
        and _CHAT_ROUTES & set(settings.gateway.routes)
    ):
        message = "model.chat_template: not set, and the model has no chat template: chat responses will be poor"
        hint = "set model.chat_template to the template from the model card, or serve its instruct version"
        yield Problem("no-chat-template", message, "model.chat_template", hint=hint, severity="warning")
