"""Settings.model -> files on this machine's disk: found, fetched, checked.

The one door to this package for the engine program and the CLI. Every failure is a ModelError that says whether trying
again could help, and what to do.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.errors import ModelError
from llama_gguf.logs import fields
from llama_gguf.models.checksum import VerifiedFiles, verify
from llama_gguf.models.fetch_context import Means
from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import Header
from llama_gguf.models.local_files import Role, check_model, check_readable, find_named
from llama_gguf.models.model_files import LoraFile, ModelFiles, Reporter
from llama_gguf.models.source import AtUrl, Named, OnDisk, OnHub, Wanted, plan_sources
from llama_gguf.settings import Locations

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Model

log = logging.getLogger(__name__)

ATTEMPTS = 8
_MOST_VOCABULARY_DIFFERENCE = 128  # llama.cpp's own bound
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 2.0, 60.0


def resolve(model: Model, locations: Locations, env: Mapping[str, str], reporter: Reporter) -> ModelFiles:
    """Have every file of `model` on disk and return their paths. Blocks for as long as a download takes."""
    sources = plan_sources(model, locations, env)
    means = Means(env, VerifiedFiles(locations.models_dir / ".verified"), reporter, model.download_connections)
    if sources.chat_template:
        check_readable(sources.chat_template, "model.chat_template")

    def have(wanted: Wanted, role: Role) -> tuple[Path, Header]:
        reporter.phase("resolving", wanted.description)
        path = _locate(wanted, means)
        header = check_model(path, wanted.setting, role)
        if wanted.sha256:
            verify(path, wanted.sha256, wanted.setting, means.verified, reporter)
        return path, header

    path, header = have(sources.model, "model")
    draft, draft_header = have(sources.draft, "draft") if sources.draft else (None, None)
    names_its_kind = draft_header is not None and _names_its_kind(draft_header)
    if draft_header and not names_its_kind:
        _check_same_words(header, draft_header)
    return ModelFiles(
        model=path,
        mmproj=have(sources.mmproj, "mmproj")[0] if sources.mmproj else None,
        draft=draft,
        lora=tuple(
            LoraFile(have(wanted, "lora")[0], adapter.scale)
            for wanted, adapter in zip(sources.lora, model.lora, strict=True)
        ),
        chat_template=sources.chat_template,
        draft_names_its_kind=names_its_kind,
    )


def resolve_patiently(
    model: Model,
    locations: Locations,
    env: Mapping[str, str],
    reporter: Reporter,
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelFiles:
    """Resolve, again after what may pass (a network, a busy hub), with growing pauses of up to a minute."""
    delay = _FIRST_DELAY_SECONDS
    for attempt in range(1, attempts):
        try:
            return resolve(model, locations, env, reporter)
        except ModelError as error:
            if error.permanent:
                raise
            pause = delay * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the retries of many workers
            log.warning(
                "model not available yet",
                extra=fields(reason=error.message, retry_seconds=round(pause, 1), attempt=attempt),
            )
            reporter.phase("resolving", f"{error.message}; try {attempt + 1} of {attempts} in {pause:.0f} s")
            sleep(pause)
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
    return resolve(model, locations, env, reporter)


def _locate(wanted: Wanted, means: Means) -> Path:
    match wanted.origin:
        case OnDisk(path):
            check_readable(path, f"{wanted.setting}.path")
            return path
        case Named() as named:
            return find_named(named, f"{wanted.setting}.name")
        case OnHub() as origin:
            from llama_gguf.models.hub.huggingface import fetch_hub  # noqa: PLC0415 - not needed for what is on disk

            return fetch_hub(wanted, origin, means)
        case AtUrl() as origin:
            from llama_gguf.models.http_url import fetch_url  # noqa: PLC0415 - as above

            return fetch_url(wanted, origin, means)


def _check_same_words(model: Header, draft: Header) -> None:
    """Raise unless the draft can speak for the model: llama-server only logs it, and then works without a draft."""
    ours, theirs = read_architecture(model).vocabulary, read_architecture(draft).vocabulary
    kinds = [header.text("tokenizer.ggml.model") for header in (model, draft)]
    if kinds[0] != kinds[1] or abs(ours - theirs) > _MOST_VOCABULARY_DIFFERENCE:
        raise ModelError(
            f"model.draft: {draft.path.name} has another vocabulary ({kinds[1]}, {theirs} tokens) than the model "
            f"({kinds[0]}, {ours})",
            code="model_wrong_kind",
            hint="take a small model of the same family as draft",
        )


def _names_its_kind(draft: Header) -> bool:
    """Whether llama-server finds out by itself how to speculate with this draft; it does for these only."""
    last_layer = draft.number(f"{draft.architecture}.block_count") - 1
    return draft.architecture == "dflash" or f"blk.{last_layer}.nextn.eh_proj.weight" in draft.by_name
