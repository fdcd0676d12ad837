"""The sources of a file of weights. Separate from `model`, because the programs use them without pydantic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Artifact, Model

SOURCES = ("path", "name", "hf", "url")
DOWNLOADED = ("hf", "url")
ONE_SOURCE = f"exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}"


def sources_of(artifact: Artifact) -> list[str]:
    """Return the names of the sources that are set; a usable artifact has exactly one."""
    return [name for name in SOURCES if getattr(artifact, name) is not None]


def artifacts_of(model: Model) -> Iterator[tuple[str, Artifact]]:
    """Yield the dotted name and value of every file of weights that `model` refers to."""
    yield "model", model
    for name, companion in (("mmproj", model.mmproj), ("draft", model.draft)):
        if companion is not None:
            yield f"model.{name}", companion
    for index, adapter in enumerate(model.lora):
        yield f"model.lora[{index}]", adapter
