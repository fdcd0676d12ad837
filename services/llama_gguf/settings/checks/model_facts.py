"""A model's metadata, compared with the task it is configured for. Pure.

Separate from `machine`, because the engine's program checks the same and reads its settings without pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.errors import Problem
from llama_gguf.settings.sections.engine_parts.auto import AUTO, known

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine
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
    has_experts: bool = True
    has_mtp_layers: bool = True


def model_problems(settings: Settings, facts: ModelFacts, *, context_is_default: bool = False) -> list[Problem]:
    """Return what is wrong with serving a model with these facts: warnings, and an error if the engine would abort.

    `context_is_default`: `engine.context_per_slot` is not set.
    """
    return [
        *_context(settings, facts, is_default=context_is_default),
        *_task(settings, facts),
        *_abilities(settings, facts),
    ]


def longest_context(engine: Engine, trained: int) -> int:
    """Return how long a slot's context can be with a model that was trained with `trained` tokens; 0 if unknown."""
    rope = engine.rope
    if trained and rope.scaling == "yarn" and rope.scale is not None:
        return int((rope.yarn_original_context or trained) * rope.scale)  # as llama.cpp does, for YaRN only
    return trained


def _context(settings: Settings, facts: ModelFacts, *, is_default: bool) -> Iterator[Problem]:
    engine = settings.engine
    trained, slots = longest_context(engine, facts.training_context), engine.slots
    context = known(engine.context_per_slot)
    if trained and context is not None and context > trained:
        default = " (the default)" if is_default else ""
        total = "" if slots == AUTO else f" ({slots} slots, {context * slots} tokens of memory in all)"
        message = (
            f"engine.context_per_slot: {context}{default} is more than the {trained} tokens the model was trained "
            f"with{total}"
        )
        hint = f"llama-server gives a slot {trained} tokens; for a model made for YaRN, set engine.rope"
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


def _abilities(settings: Settings, facts: ModelFacts) -> Iterator[Problem]:
    engine = settings.engine
    if "draft-mtp" in engine.speculative.types and settings.model.draft is None and not facts.has_mtp_layers:
        message = "engine.speculative.types: draft-mtp needs MTP layers, and the model's file has none"
        hint = "use a file with them (some conversions leave them out), set model.draft, or use ngram-simple"
        yield Problem("bad-speculation", message, "engine.speculative.types", hint=hint)
    if engine.cpu_moe_layers and not facts.has_experts:
        message = "engine.cpu_moe_layers: has no effect, the model has no experts"
        yield Problem("no-effect", message, "engine.cpu_moe_layers", severity="warning")
