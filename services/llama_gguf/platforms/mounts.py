"""Whether the paths that a configuration names exist in the container that a spec describes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.container import Launch, is_below, models_dir, read_paths, written_paths
from llama_gguf.settings.locations import DATA_DIR


@dataclass(frozen=True, slots=True)
class Places:
    """What a spec mounts: `kept` outlives the container, `lost` can be written but is gone with it."""

    file: str
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = (DATA_DIR, "/tmp", "/run")  # noqa: S108 - paths in the container, not on this machine


def check_places(launch: Launch, places: Places, findings: Findings) -> None:
    """Note the files that no volume brings into the container, and those that it could not write or would lose."""
    settings = launch.settings
    for name, path in read_paths(settings).items():
        if not is_below(path, places.kept):
            findings.warn(
                "path-in-image",
                name,
                f"{places.file}: {name} is {path}, which lies on no volume{_list(places.kept)}: the image must hold it",
                "take the model from hf or url, or put the file on a volume",
            )
    if settings.model.name and not is_below(models_dir(launch), places.kept):
        findings.warn(
            "path-in-image",
            "model.name",
            f"{places.file}: {settings.model.name} lies in a directory that starts empty: the image must hold it",
            "take the model from hf or url, or put the models directory on a volume",
        )
    for name, path in written_paths(settings).items():
        if not is_below(path, (*places.kept, *places.lost)):
            findings.error(
                "path-not-writable",
                name,
                f"{places.file}: {name} is {path}, where the container may not write",
                f"leave it out, or choose a path below {' or '.join(places.kept or places.lost[:1])}",
            )


def _list(kept: tuple[str, ...]) -> str:
    return f" ({', '.join(kept)})" if kept else ""
