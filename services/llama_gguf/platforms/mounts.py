"""Whether the paths of a configuration exist in the container that a spec describes, and outlive it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.container import (
    Launch,
    every_artifact,
    is_below,
    models_dir,
    read_paths,
    written_paths,
)
from llama_gguf.settings.locations import DATA_DIR


@dataclass(frozen=True, slots=True)
class Mounts:
    """The writable directories of a spec: `persistent` ones outlive the container, `ephemeral` ones do not."""

    file: str
    persistent: tuple[str, ...] = ()
    ephemeral: tuple[str, ...] = (DATA_DIR, "/tmp", "/run")  # noqa: S108 - paths in the container, not on this machine


def check_mounts(launch: Launch, mounts: Mounts, findings: Findings) -> None:
    """Report the files that are on no volume, and the paths that the container cannot write to."""
    settings = launch.settings
    for name, path in read_paths(settings).items():
        if not is_below(path, mounts.persistent):
            findings.warn(
                "path-in-image",
                name,
                f"{mounts.file}: {name} is {path}, on no volume{_list(mounts.persistent)}: the image must contain it",
                "use hf or url as the model's source, or put the file on a volume",
            )
    for place, artifact in every_artifact(settings):
        if artifact.name and not is_below(models_dir(launch), mounts.persistent):
            findings.warn(
                "path-in-image",
                f"{place}.name",
                f"{mounts.file}: {artifact.name} is in a directory that starts empty: the image must contain it",
                "use hf or url as the model's source, or put the models directory on a volume",
            )
    for name, path in written_paths(settings).items():
        if not is_below(path, (*mounts.persistent, *mounts.ephemeral)):
            findings.error(
                "path-not-writable",
                name,
                f"{mounts.file}: {name} is {path}, where the container cannot write",
                f"remove the setting, or choose a path below {' or '.join(mounts.persistent or mounts.ephemeral[:1])}",
            )


def _list(volumes: tuple[str, ...]) -> str:
    return f" ({', '.join(volumes)})" if volumes else ""
