"""Problems of those files of a model that are on this machine's disk, in the words with which a start would end.

Everything is found by the functions that `resolve` calls as well, so `check` and `up` cannot differ. Reads headers and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from llama_gguf.errors import ConfigError, ModelError, Problem
from llama_gguf.models.checks.chat_template import check_chat_template
from llama_gguf.models.checks.family import check_adapter, check_draft
from llama_gguf.models.gguf.facts import facts_of
from llama_gguf.models.gguf.header import Header
from llama_gguf.models.inventory import file_status, wanted_roles
from llama_gguf.models.local_files import Role, check_model, find_local
from llama_gguf.models.source import AtUrl, Named, OnDisk, OnHub, Wanted, plan_sources
from llama_gguf.settings import Locations, Settings
from llama_gguf.settings.checks.machine import variable_problems
from llama_gguf.settings.checks.model_facts import model_problems

_CODES = {
    "model_directory_missing": "models-dir-missing",
    "model_incomplete": "model-incomplete",
    "model_not_a_file": "model-unreadable",
    "model_not_found": "model-missing",
    "model_not_gguf": "model-not-gguf",
    "model_not_readable": "model-unreadable",
    "model_split": "model-split",
    "model_unrelated": "model-unrelated",
    "model_unsupported": "model-unsupported",
    "model_wrong_kind": "model-wrong-kind",
    "template_unusable": "template-unusable",
}
"""Codes of errors, and those of the same problems in a configuration."""
_Found = TypeVar("_Found")


def file_problems(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the files of the model, and with serving it; of files to be downloaded nothing."""
    try:
        sources = plan_sources(settings.model, locations, env)
    except ConfigError as error:
        return [Problem("bad-name", error.message, _setting_of(error, "model"), hint=error.hint)]
    problems: list[Problem] = []

    def attempt(setting: str, check: Callable[[], _Found]) -> _Found | None:
        try:
            return check()
        except ModelError as error:
            place = _setting_of(error, setting)
            problems.append(Problem(_CODES.get(error.code, "model-unusable"), error.message, place, hint=error.hint))
            return None

    def header_of(wanted: Wanted, role: Role) -> Header | None:
        return attempt(_place(wanted), partial(_header, wanted, role))

    headers = {wanted.setting: header_of(wanted, role) for wanted, role in wanted_roles(sources)}
    if template := sources.chat_template:
        attempt("model.chat_template", partial(check_chat_template, template, "model.chat_template"))
    if model := headers["model"]:
        for wanted, role in wanted_roles(sources):
            other, related = headers[wanted.setting], _RELATED.get(role)
            if other is not None and related is not None:
                attempt(wanted.setting, partial(related, model, other, wanted.setting))
        default = "context_per_slot" not in settings.engine.model_fields_set
        problems += model_problems(settings, facts_of(model), context_is_default=default)
    return problems


_RELATED: Mapping[Role, Callable[[Header, Header, str], None]] = {"draft": check_draft, "lora": check_adapter}


def token_problems(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the variables of tokens: an error if a file is still to be downloaded with one."""
    try:
        sources = plan_sources(settings.model, locations, env)
    except ConfigError:
        return []  # told by `file_problems`
    return [
        problem
        for wanted, _ in wanted_roles(sources)
        if wanted.token_env
        for problem in variable_problems(
            f"{wanted.setting}.token_env", wanted.token_env, env, needed=not _local(wanted)
        )
    ]


def _local(wanted: Wanted) -> bool:
    return isinstance(wanted.origin, OnDisk | Named) or file_status(wanted).present


def _header(wanted: Wanted, role: Role) -> Header | None:
    """Return the header of a file on disk, None for one that is to be downloaded. Raises ModelError."""
    path = _path(wanted)
    return check_model(path, wanted.setting, role) if path else None


def _path(wanted: Wanted) -> Path | None:
    match wanted.origin:
        case OnDisk() | Named() as origin:
            return find_local(origin, wanted.setting)
        case OnHub() | AtUrl():
            status = file_status(wanted)
            return status.path if status.present else None


def _place(wanted: Wanted) -> str:
    """Return the setting that names the file, which is where its problems are shown."""
    match wanted.origin:
        case OnDisk():
            return f"{wanted.setting}.path"
        case Named():
            return f"{wanted.setting}.name"
        case OnHub():
            return f"{wanted.setting}.hf"
        case AtUrl():
            return f"{wanted.setting}.url"


def _setting_of(error: ConfigError | ModelError, default: str) -> str:
    """Return the setting with which the message begins, if it is more exact than `default`."""
    setting = error.message.partition(":")[0]
    return setting if setting.startswith(default) else default
