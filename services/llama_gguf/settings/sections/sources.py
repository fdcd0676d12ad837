"""The sources of a file of weights, and of the first API key.

Separate from `model` and `auth`, because the programs use them without pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_gguf.settings.sections.auth import Bootstrap
    from llama_gguf.settings.sections.model import Artifact, Model

SOURCES = ("path", "name", "hf", "url")
DOWNLOADED = ("hf", "url")
ONE_SOURCE = f"exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]}"


def sources_of(artifact: Artifact) -> list[str]:
    """Return the names of the sources that are set; a usable artifact has exactly one."""
    return [name for name in SOURCES if getattr(artifact, name) is not None]


def key_sources_of(bootstrap: Bootstrap) -> list[str]:
    """Return the names of the sources of the first key that are set; at most one is usable."""
    return [name for name in ("env", "file", "generate") if getattr(bootstrap, name)]


def artifacts_of(model: Model) -> Iterator[tuple[str, Artifact]]:
    """Yield the dotted name and value of every file of weights that `model` refers to."""
    yield "model", model
    for name, companion in (("mmproj", model.mmproj), ("draft", model.draft)):
        if companion is not None:
            yield f"model.{name}", companion
    for index, adapter in enumerate(model.lora):
        yield f"model.lora[{index}]", adapter
