"""Which files of the model are on disk, without downloading anything: for `plan` and `model info`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.models.gguf.header import Tensor, read_header
from llama_gguf.models.hub.cache_layout import find_cached, snapshots
from llama_gguf.models.local_files import Role
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.models.source import AtUrl, Named, OnDisk, OnHub, Sources, Wanted, split_names
from llama_gguf.settings.gguf_file import named_file

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Model


@dataclass(frozen=True, slots=True)
class ModelFileStatus:
    """One file of the model: where it is, or where it will be."""

    wanted: Wanted
    path: Path
    present: bool

    @property
    def bytes_on_disk(self) -> int:
        """Size of all its parts that are on disk."""
        parts = (self.path.with_name(name) for name in split_names(self.path.name))
        return sum(part.stat().st_size for part in parts if part.is_file())


def file_status(wanted: Wanted) -> ModelFileStatus:
    """Return where `wanted` is or will be. Reads only the disk."""
    match wanted.origin:
        case OnDisk(path) | AtUrl(_, path):
            return ModelFileStatus(wanted, path, path.is_file())
        case Named(directory, name):
            path = named_file(directory, name)
            return ModelFileStatus(wanted, path, path.is_file())
        case OnHub() as origin:
            cached = find_cached(origin)
            future = snapshots(origin.caches[0], origin) / origin.revision / origin.file
            return ModelFileStatus(wanted, cached or future, cached is not None)


def wanted_roles(sources: Sources) -> tuple[tuple[Wanted, Role], ...]:
    """Return every file of `sources` and what it is for, the model first."""
    files: tuple[tuple[Wanted | None, Role], ...] = (
        (sources.model, "model"),
        (sources.mmproj, "mmproj"),
        (sources.draft, "draft"),
        *((wanted, "lora") for wanted in sources.lora),
    )
    return tuple((wanted, role) for wanted, role in files if wanted)


def all_wanted(sources: Sources) -> tuple[Wanted, ...]:
    """Return every file of `sources`, the model first."""
    return tuple(wanted for wanted, _ in wanted_roles(sources))


def expected_files(model: Model, sources: Sources) -> ModelFiles:
    """Return the files llama-server will be started with, as far as that is known before they are downloaded."""

    def path(wanted: Wanted) -> Path:
        return file_status(wanted).path

    return ModelFiles(
        model=path(sources.model),
        mmproj=path(sources.mmproj) if sources.mmproj else None,
        draft=path(sources.draft) if sources.draft else None,
        lora=tuple(
            LoraFile(path(wanted), adapter.scale) for wanted, adapter in zip(sources.lora, model.lora, strict=True)
        ),
        chat_template=sources.chat_template,
    )


def all_tensors(path: Path) -> tuple[Tensor, ...]:
    """Return the tensors of the model at `path`, including those of its other parts."""
    parts = (path.with_name(name) for name in split_names(path.name))
    return tuple(tensor for part in parts for tensor in read_header(part).tensors)
