"""Settings.model -> files on this machine's disk: found, downloaded, checked.

The entry point of this package for the engine program and the CLI. Every failure is a ModelError that says whether
trying again can help, and what to do.
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
from llama_gguf.models.checks.family import check_adapter, check_draft, sets_spec_type
from llama_gguf.models.checksum import VerifiedFiles, verify
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.gguf.header import Header
from llama_gguf.models.inventory import all_wanted, wanted_roles
from llama_gguf.models.local_files import Role, check_model, find_local
from llama_gguf.models.model_files import LoraFile, ModelFiles, Reporter
from llama_gguf.models.network import Network
from llama_gguf.models.shelf.last_use import LastUse
from llama_gguf.models.source import AtUrl, Named, OnDisk, OnHub, Sources, Wanted, plan_sources
from llama_gguf.models.survey import survey, to_download
from llama_gguf.settings import Locations
from llama_gguf.states import Phase

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Model

log = logging.getLogger(__name__)

ATTEMPTS = 8
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 2.0, 60.0
_MAX_RETRY_AFTER_SECONDS = 300.0  # a server that asks for more is asked again after this


def survey_all(models: Mapping[str, Model], locations: Locations, env: Mapping[str, str], reporter: Reporter) -> None:
    """Raise ModelError if one of `models`, by place, cannot be downloaded, or if there is no room for all of them."""
    reporter.phase(Phase.RESOLVING, "looking at all models")
    wanted = _wanted_of(models, locations, env)
    survey(wanted, FetchContext(env, Network(env), VerifiedFiles(locations.models_dir / ".verified"), reporter))


def _wanted_of(models: Mapping[str, Model], locations: Locations, env: Mapping[str, str]) -> list[Wanted]:
    return [one for place, model in models.items() for one in all_wanted(plan_sources(model, locations, env, place))]


def resolve(
    model: Model,
    locations: Locations,
    env: Mapping[str, str],
    reporter: Reporter,
    *,
    place: str = "model",
    beside: Mapping[str, Model] | None = None,
) -> ModelFiles:
    """Download what is missing of `model` and return the paths of its files. Blocks as long as a download takes.

    `place` is the model's in the configuration, for messages; `beside` are models whose downloads need room too.
    """
    sources = plan_sources(model, locations, env, place)
    verified = VerifiedFiles(locations.models_dir / ".verified")
    context = FetchContext(env, Network(env), verified, reporter, model.download_connections)
    last_use = LastUse(locations.models_dir)
    if sources.chat_template:
        from llama_gguf.models.checks.chat_template import check_chat_template  # noqa: PLC0415 - few have one

        check_chat_template(sources.chat_template, f"{place}.chat_template")
    if to_download(all_wanted(sources)):
        _check_local(sources)
        survey(all_wanted(sources), context, _wanted_of(beside or {}, locations, env))

    def fetch_adapter(wanted: Wanted) -> Path:
        path, adapter = fetch(wanted, "lora")
        check_adapter(header, adapter, wanted.setting)
        return path

    def fetch(wanted: Wanted, role: Role) -> tuple[Path, Header]:
        reporter.phase(Phase.RESOLVING, wanted.description)
        path = _locate(wanted, context)
        header = check_model(path, wanted.setting, role)
        if wanted.sha256:
            verify(path, wanted.sha256, wanted.setting, context.verified, reporter)
        last_use.record(path)
        return path, header

    path, header = fetch(sources.model, "model")
    draft, draft_header = fetch(sources.draft, "draft") if sources.draft else (None, None)
    if draft_header:
        check_draft(header, draft_header, f"{place}.draft")
    return ModelFiles(
        model=path,
        mmproj=fetch(sources.mmproj, "mmproj")[0] if sources.mmproj else None,
        draft=draft,
        lora=tuple(
            LoraFile(fetch_adapter(wanted), adapter.scale)
            for wanted, adapter in zip(sources.lora, model.lora, strict=True)
        ),
        chat_template=sources.chat_template,
        draft_sets_spec_type=draft_header is not None and sets_spec_type(draft_header),
    )


def _check_local(sources: Sources) -> None:
    """Raise for a file that should be on disk and cannot be used, before others are downloaded."""
    for wanted, role in wanted_roles(sources):
        if isinstance(wanted.origin, OnDisk | Named):
            check_model(find_local(wanted.origin, wanted.setting), wanted.setting, role)


def resolve_with_retries(
    model: Model,
    locations: Locations,
    env: Mapping[str, str],
    reporter: Reporter,
    *,
    place: str = "model",
    beside: Mapping[str, Model] | None = None,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelFiles:
    """Resolve with retries after transient failures (network, overloaded hub), at growing intervals or when it says."""
    delay = _FIRST_DELAY_SECONDS
    for attempt in range(1, attempts):
        try:
            return resolve(model, locations, env, reporter, place=place, beside=beside)
        except ModelError as error:
            last = min(attempts, error.max_attempts or attempts)
            if error.permanent or attempt >= last:
                raise
            jittered = delay * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the retries of many workers
            if error.retry_after_seconds is not None:
                asked = min(error.retry_after_seconds, _MAX_RETRY_AFTER_SECONDS)
                jittered = max(jittered, asked + random.uniform(0, 2.0))  # noqa: S311 - as above, and never earlier
            log.warning(
                "model not available yet",
                extra=fields(reason=error.message, retry_seconds=round(jittered, 1), attempt=attempt),
            )
            reporter.phase(Phase.RESOLVING, f"{error.message}; attempt {attempt + 1} of {last} in {jittered:.0f} s")
            sleep(jittered)
            delay = min(delay * 2, _MAX_DELAY_SECONDS)
    return resolve(model, locations, env, reporter, place=place, beside=beside)


def _locate(wanted: Wanted, context: FetchContext) -> Path:
    match wanted.origin:
        case OnDisk() | Named() as origin:
            return find_local(origin, wanted.setting)
        case OnHub() as origin:
            from llama_gguf.models.hub.huggingface import fetch_hub  # noqa: PLC0415 - not needed for files on disk

            return fetch_hub(wanted, origin, context)
        case AtUrl() as origin:
            from llama_gguf.models.http_url import fetch_url  # noqa: PLC0415 - as above

            return fetch_url(wanted, origin, context)
