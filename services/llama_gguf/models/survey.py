"""All files of one or several models, looked at before the first byte of the first one is downloaded.

So that a draft that does not exist, or a third part that has no room, costs seconds and not an hour. A single file
needs no survey: its download begins with the same questions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.logs import fields
from llama_gguf.models.download.room import Missing, check_room
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.inventory import file_status
from llama_gguf.models.source import AtUrl, OnHub, Wanted, split_names

log = logging.getLogger(__name__)


def survey(wanted: Iterable[Wanted], context: FetchContext, beside: Iterable[Wanted] = ()) -> None:
    """Raise the ModelError that one of the downloads would raise, or that there is no room for all of them.

    Files `beside` these, of other models, need room too; what is wrong with them is reported by their own engines.
    """
    own, others = to_download(wanted), to_download(beside)
    if not own or (len(own) == 1 and len(_parts(own[0])) == 1 and not others):
        return
    missing = [file for one in own for file in _missing(one, context)]
    for one in others:
        try:
            missing += _missing(one, context)
        except (ModelError, ConfigError) as error:
            log.info("the size of another model is not known", extra=fields(model=one.setting, reason=error.message))
    check_room(missing)


def to_download(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Return those that are to be downloaded: they are not on disk, or not all of their parts."""
    return [one for one in wanted if isinstance(one.origin, OnHub | AtUrl) and not _is_there(one)]


def _is_there(wanted: Wanted) -> bool:
    status = file_status(wanted)
    return status.present and all(status.path.with_name(name).exists() for name in split_names(status.path.name))


def _parts(wanted: Wanted) -> tuple[str, ...]:
    match wanted.origin:
        case OnHub() as origin:
            return split_names(origin.file)
        case AtUrl() as origin:
            return split_names(origin.path.name)
        case _:
            return ()


def _missing(wanted: Wanted, context: FetchContext) -> list[Missing]:
    match wanted.origin:
        case OnHub() as origin:
            from llama_gguf.models.hub.huggingface import missing_from_hub  # noqa: PLC0415 - not for files on disk

            return missing_from_hub(wanted, origin, context)
        case AtUrl() as origin:
            from llama_gguf.models.http_url import missing_at_url  # noqa: PLC0415 - as above

            return missing_at_url(wanted, origin, context)
        case _:
            return []
