"""Settings.model -> which files are needed and where each one will be. Pure: no disk, no network.

A path, a name in the models directory, a file of a Hugging Face repository and a URL each become one `Wanted`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from llama_gguf.errors import ConfigError
from llama_gguf.settings import Locations
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.gguf_file import SPLIT, SUFFIX
from llama_gguf.settings.platform import RUNPOD_MODEL_CACHE
from llama_gguf.settings.redaction import url_without_secrets
from llama_gguf.settings.sections.sources import ONE_SOURCE, sources_of

if TYPE_CHECKING:
    from llama_gguf.settings.sections.model import Artifact, HuggingFace, Model


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file that the operator put there."""

    path: Path


@dataclass(frozen=True, slots=True)
class Named:
    """A file in the models directory, its suffix optional."""

    directory: Path
    name: str


@dataclass(frozen=True, slots=True)
class OnHub:
    """A file in a Hugging Face repository; `caches` are searched in order, the first one is written to."""

    repo: str
    file: str
    revision: str
    caches: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class AtUrl:
    """A file at an HTTP URL, and where it is stored."""

    url: str
    path: Path


Origin = OnDisk | Named | OnHub | AtUrl


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that llama-server needs."""

    setting: str  # dotted path of the artifact in the configuration
    origin: Origin
    sha256: str | None = None
    token_env: str | None = None

    @property
    def description(self) -> str:
        """The source of the file for messages, without query strings, which can contain secrets."""
        match self.origin:
            case OnDisk(path):
                return str(path)
            case Named(directory, name):
                return f"{name} in {directory}"
            case OnHub(repo, file, revision):
                return f"{repo}/{file}@{revision}"
            case AtUrl(url):
                return url_without_secrets(url)


@dataclass(frozen=True, slots=True)
class Sources:
    """All files that Settings.model needs."""

    model: Wanted
    mmproj: Wanted | None
    draft: Wanted | None
    lora: tuple[Wanted, ...]
    chat_template: Path | None


def plan_sources(model: Model, locations: Locations, env: Mapping[str, str], place: str = "model") -> Sources:
    """Return what has to be on disk before llama-server starts; `place` is the model's in the configuration."""

    def wanted(artifact: Artifact, setting: str) -> Wanted:
        return Wanted(setting, _origin(artifact, setting, locations, env), artifact.sha256, artifact.token_env)

    return Sources(
        model=wanted(model, place),
        mmproj=wanted(model.mmproj, f"{place}.mmproj") if model.mmproj else None,
        draft=wanted(model.draft, f"{place}.draft") if model.draft else None,
        lora=tuple(wanted(adapter, f"{place}.lora[{index}]") for index, adapter in enumerate(model.lora)),
        chat_template=Path(model.chat_template).absolute() if model.chat_template else None,
    )


def _origin(artifact: Artifact, setting: str, locations: Locations, env: Mapping[str, str]) -> Origin:
    match sources_of(artifact):
        case ["path"]:
            return OnDisk(Path(artifact.path or "").absolute())
        case ["name"]:
            return Named(locations.models_dir, _inside(artifact.name or "", f"{setting}.name"))
        case ["hf"] if artifact.hf:
            return _on_hub(artifact.hf, setting, locations, env)
        case ["url"]:
            return _at_url(artifact.url or "", setting, locations.models_dir)
        case found:
            raise ConfigError(f"{setting}: needs {ONE_SOURCE}; {' and '.join(found) or 'none'} given")


def hub_cache(locations: Locations, env: Mapping[str, str]) -> Path:
    """Return the cache that files of the hub are downloaded to."""
    if explicit := clean(env.get("HF_HUB_CACHE", "")).text:
        return Path(explicit)
    if home := clean(env.get("HF_HOME", "")).text:
        return Path(home) / "hub"
    return locations.models_dir / "huggingface"


def _on_hub(hf: HuggingFace, setting: str, locations: Locations, env: Mapping[str, str]) -> OnHub:
    caches = (hub_cache(locations, env), Path(RUNPOD_MODEL_CACHE))
    return OnHub(hf.repo, _inside(hf.file, f"{setting}.hf.file"), hf.revision, caches)


def _at_url(url: str, setting: str, models_dir: Path) -> AtUrl:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{setting}.url: {url_without_secrets(url)} is not an http:// or https:// URL")
    name = re.sub(r"[^\w.-]", "_", unquote(parts.path).rsplit("/", 1)[-1]) or f"model{SUFFIX}"
    # The query can contain a signature that changes at each start, so it is not part of the file's identity.
    identity = hashlib.sha256(f"{parts.scheme}://{parts.netloc}{parts.path}".encode()).hexdigest()[:16]
    return AtUrl(url, models_dir / "url" / identity / name)


def _inside(name: str, setting: str) -> str:
    if name.startswith(("/", "~")) or ".." in name.split("/") or "\\" in name:
        raise ConfigError(
            f"{setting}: {name!r} must name a file below its directory", hint="use `path` for other files"
        )
    return name


def served_names(model: Model) -> tuple[str, ...]:
    """Return the model's names in the API: the aliases, else the file's name without its suffix."""
    if model.aliases:
        return model.aliases
    if model.url:
        file = unquote(urlsplit(model.url).path)
    else:
        file = model.path or model.name or (model.hf.file if model.hf else "")
    stem = SPLIT.sub("", file.rsplit("/", 1)[-1]).removesuffix(SUFFIX)
    return (stem.replace(",", "_").strip() or "model",)  # llama-server splits names at commas


def split_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of the split model that `name` belongs to; only `name` if it is not a part."""
    match = SPLIT.search(name)
    if not match:
        return (name,)
    count = int(match["count"])
    stem = name[: match.start()]
    return tuple(f"{stem}-{number:05}-of-{count:05}{SUFFIX}" for number in range(1, count + 1))
