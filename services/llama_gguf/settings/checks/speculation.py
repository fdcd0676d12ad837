"""Checks of `engine.speculative` and `engine.reasoning`: drafts that cannot be made, numbers without a use. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from llama_gguf.errors import Problem
from llama_gguf.settings.checks.draft_tokens import longest_draft, verified_at_once
from llama_gguf.settings.sections.engine_parts.auto import known
from llama_gguf.settings.sections.settings import Settings

_PLACE = "engine.speculative"
_WITHOUT_DRAFT = "draft-mtp"  # the model's own layers can make these drafts
_SHARED = {
    "ngram-mod": "all requests share one pool of text",
    "ngram-cache": "each slot keeps the text of earlier requests",
}
_MOD_MIN_TOKENS = 48  # llama-server's default


def types(settings: Settings) -> Iterator[Problem]:
    """Drafts have somewhere to come from, and no more than one draft model."""
    chosen, place = settings.engine.speculative.types, f"{_PLACE}.types"
    if chosen and settings.engine.task != "generate":
        message = f"{place}: has no effect, engine.task is {settings.engine.task}"
        yield Problem("no-effect", message, place, severity="warning")
    drafts = [name for name in dict.fromkeys(chosen) if name.startswith("draft-")]
    if len(drafts) > 1:
        message = f"{place}: {' and '.join(drafts)} exclude each other: there is one draft model"
        yield Problem("bad-speculation", message, place, hint="keep the one that model.draft is made for")
    elif drafts and drafts[0] != _WITHOUT_DRAFT and settings.model.draft is None:
        message = f"{place}: {drafts[0]} needs a draft model, and model.draft is not set"
        hint = "set model.draft, or use ngram-simple, which needs none"
        yield Problem("bad-speculation", message, place, hint=hint)
    elif chosen and not drafts and settings.model.draft is not None:
        message = f"model.draft: is loaded and never used, because {place} has no draft-… type"
        yield Problem("no-effect", message, "model.draft", hint=f"remove it, or add draft-simple to {place}")
    for name in chosen:
        if settings.auth.enabled and (why := _SHARED.get(name)):
            message = f"{place}: with {name} {why}, so the speed of responses reveals the text of other keys"
            hint = "use ngram-simple or ngram-map-k, unless all keys may know that"
            yield Problem("shared-drafts", message, place, hint=hint, severity="warning")


def numbers(settings: Settings) -> Iterator[Problem]:
    """Each number is used by one of the types, and the minimum is not above the maximum."""
    speculative = settings.engine.speculative
    chosen = set(speculative.types)
    drafts = settings.model.draft is not None or any(name.startswith("draft-") for name in chosen)
    ngrams = {name for name in chosen if name.startswith("ngram-")} - {"ngram-cache"}
    used = {
        "max_tokens": drafts or ngrams,
        "min_tokens": drafts or "ngram-mod" in chosen,
        "min_probability": drafts,
        "ngram_size": ngrams,
        "ngram_min_hits": ngrams - {"ngram-mod"},
    }
    for name, by in used.items():
        if getattr(speculative, name) is not None and not by:
            place = f"{_PLACE}.{name}"
            message = f"{place}: has no effect with " + (
                f"{', '.join(speculative.types)} only" if chosen else "no types"
            )
            yield Problem("no-effect", message, place, hint=f"set {_PLACE}.types", severity="warning")
    most, least = speculative.max_tokens, speculative.min_tokens
    if most is not None and least is not None and least > most:
        message = f"{_PLACE}.min_tokens: {least} is more than max_tokens, {most}: no draft would be used"
        yield Problem("bad-speculation", message, f"{_PLACE}.min_tokens", hint=f"set it to at most {most}")
    elif most is not None and least is None and "ngram-mod" in chosen and most < _MOD_MIN_TOKENS:
        message = (
            f"{_PLACE}.max_tokens: ngram-mod uses no draft below {_MOD_MIN_TOKENS} tokens unless min_tokens is set"
        )
        yield Problem("bad-speculation", message, f"{_PLACE}.max_tokens", hint=f"set {_PLACE}.min_tokens too")


def batches(settings: Settings) -> Iterator[Problem]:
    """The drafts of all slots are verified in one batch; llama-server aborts when they do not fit."""
    engine = settings.engine
    slots, batch = known(engine.slots), known(engine.batch_size)
    if slots is None or batch is None:  # chosen to fit each other
        return
    has_draft = settings.model.draft is not None
    longest, needed = longest_draft(engine, has_draft=has_draft), verified_at_once(engine, has_draft=has_draft)
    if longest and needed > batch:
        place = f"{_PLACE}.max_tokens"
        message = f"{place}: drafts of {longest} tokens in {slots} slots need engine.batch_size {needed}"
        most = batch // slots - 1
        hint = f"set it to at most {most}, or batch_size to {needed}" if most > 0 else f"set batch_size to {needed}"
        yield Problem("bad-speculation", message, place, hint=hint)


def reasoning(settings: Settings) -> Iterator[Problem]:
    """Reasoning is of chats; a message needs the budget that it is shown for."""
    engine = settings.engine
    place = "engine.reasoning"
    if engine.task != "generate":
        for name, value in vars(engine.reasoning).items():
            if value not in ("auto", None):
                message = f"{place}.{name}: has no effect, engine.task is {engine.task}"
                yield Problem("no-effect", message, f"{place}.{name}", severity="warning")
    elif engine.reasoning.budget_message is not None and not engine.reasoning.budget_tokens:
        message = f"{place}.budget_message: has no effect without budget_tokens above 0"
        yield Problem("no-effect", message, f"{place}.budget_message", severity="warning")
