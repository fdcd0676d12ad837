"""`engine.reasoning`: what a model that thinks before it answers may think, and where its thoughts go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llama_gguf.settings.sections.base import Section, Text


class Reasoning(Section):
    """Reasoning in chats. Requests can ask for less or more, as far as the model's request rules let them."""

    mode: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the model reasons before it answers: `auto` as its chat template does by default."
    )
    format: Literal["auto", "none", "deepseek", "deepseek-legacy"] = Field(
        "auto",
        description=(
            "Where the reasoning is in a response: `deepseek`, and `auto`, in `reasoning_content`; `none` leaves it in "
            "`content`; `deepseek-legacy` puts it in both, streams excepted."
        ),
    )
    effort: Literal["minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="Effort passed to the chat template, for models that have levels; see the model card."
    )
    budget_tokens: Annotated[int, Field(ge=0, le=16_777_216)] | None = Field(
        None,
        description=(
            "Tokens after which reasoning is ended, unless a request sets its own; 0 = at once. Default: no limit. "
            "model.max_reasoning_tokens caps what requests set."
        ),
    )
    budget_message: Text | None = Field(
        None, description="Text that ends a reasoning which has used up budget_tokens; the response follows."
    )
