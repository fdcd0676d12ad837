"""All files of one or several models, looked at before the first byte of the first one is downloaded.

So that a draft that does not exist, or a third part that has no room, costs seconds and not an hour. A single file
needs no survey: its download begins with the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable

from llama_gguf.models.download.room import Missing, check_room
from llama_gguf.models.fetch_context import FetchContext
from llama_gguf.models.inventory import file_status
from llama_gguf.models.source import AtUrl, OnHub, Wanted, split_names


def survey(wanted: Iterable[Wanted], context: FetchContext) -> None:
    """Raise the ModelError that one of the downloads would raise, or that there is no room for all of them."""
    missing = [one for one in wanted if isinstance(one.origin, OnHub | AtUrl) and not _is_there(one)]
    if len(missing) > 1 or any(len(_parts(one)) > 1 for one in missing):
        check_room([file for one in missing for file in _missing(one, context)])


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
