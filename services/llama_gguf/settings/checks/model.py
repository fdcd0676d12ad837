"""Checks of `model`: exactly one source per file, URLs without secrets, valid names. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal
from urllib.parse import unquote, urlsplit

from llama_gguf.errors import Problem
from llama_gguf.settings.gguf_file import GGUF_HINT, SUFFIX, has_suffix, other_format, part_of
from llama_gguf.settings.redaction import mask_text, url_secrets
from llama_gguf.settings.sections.model import Artifact, ServedModel
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import DOWNLOADED, ONE_SOURCE, SOURCES, artifacts_of, sources_of

_SOURCE_HINT = f"set one of {', '.join(f'model.{name}' for name in SOURCES)}"
_NO_MODEL_HINT = f"{_SOURCE_HINT}, or the variable MODEL_NAME or MODEL_PATH"


def sources(settings: Settings) -> Iterator[Problem]:
    """Exactly one source for every file."""
    for path, artifact in artifacts_of(settings.model):
        found = sources_of(artifact)
        if len(found) > 1:
            message = f"{path}: {len(found)} sources ({', '.join(found)}), expected one"
            yield Problem("two-sources", message, f"{path}.{found[1]}", hint=f"set {ONE_SOURCE}")
        if found:
            continue
        if path == "model":
            message = "model: no source is set" if settings.model.model_fields_set else "model: missing"
            one_of_several = isinstance(settings.model, ServedModel)  # the short variables are those of `model`
            yield Problem("no-model", message, path, hint=_SOURCE_HINT if one_of_several else _NO_MODEL_HINT)
        else:
            yield Problem("no-source", f"{path}: no source is set", path, hint=f"set {ONE_SOURCE}")


def urls(settings: Settings) -> Iterator[Problem]:
    """`url` is an HTTP(S) URL and contains no secret."""
    for path, artifact in artifacts_of(settings.model):
        if artifact.url is None:
            continue
        setting = f"{path}.url"
        host = _host(artifact.url)
        if not artifact.url.lower().startswith(("http://", "https://")) or not host:
            message = f'{setting}: expected an http:// or https:// URL, got "{mask_text(artifact.url)}"'
            yield Problem("bad-url", message, setting)
            continue
        found = set(url_secrets(artifact.url))
        if found & {"password", "token"}:
            what = "a password" if "password" in found else "a token"
            hint = f"put the token in a variable, and set {path}.token_env to the variable's name"
            yield Problem("secret-in-url", f"{setting}: the URL contains {what}", setting, hint=hint)
        elif found:
            message = f"{setting}: the URL contains a signature; once it expires, the model cannot be downloaded"
            yield Problem("signed-url", message, setting, severity="warning")
        if artifact.token_env and artifact.url.lower().startswith("http://"):
            message = f"{setting}: the token of {path}.token_env would be sent unencrypted"
            yield Problem("token-unencrypted", message, setting, hint="use https://", severity="warning")


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it validates it
    except ValueError:
        return None
    return None if port == 0 else parts.hostname


def names(settings: Settings) -> Iterator[Problem]:
    """Paths, names and files in repositories are valid."""
    for path, artifact in artifacts_of(settings.model):
        for field, text in (("path", artifact.path), ("name", artifact.name)):
            if text is not None and "://" in text:
                hint = f"did you mean {path}.url?" if text.lower().startswith("http") else f"see {path}.hf"
                yield Problem("address-as-file", f"{path}.{field}: is a URL, not a file", f"{path}.{field}", hint=hint)
        name = artifact.name
        if name is not None and "://" not in name and (name.startswith("/") or ".." in name.split("/")):
            message = f'{path}.name: "{name}" leads outside the models directory'
            yield Problem("bad-name", message, f"{path}.name", hint=f"did you mean {path}.path?")
        if artifact.hf is not None and not has_suffix(artifact.hf.file):
            message = f'{path}.hf.file: "{artifact.hf.file}" does not end in {SUFFIX}'
            yield Problem("not-gguf", message, f"{path}.hf.file", hint=GGUF_HINT)


def formats(settings: Settings) -> Iterator[Problem]:
    """What is downloaded is a file, not a page about it, in llama.cpp's format and the first part of a split one."""
    for path, artifact in artifacts_of(settings.model):
        if artifact.hf is not None:
            yield from _part(f"{path}.hf.file", artifact.hf.file)
        if artifact.url is None or not _host(artifact.url):
            continue
        setting, parts = f"{path}.url", urlsplit(artifact.url)
        name = unquote(parts.path).rsplit("/", 1)[-1]
        if hint := _instead_of_page(path, artifact.url):
            message = f'{setting}: "{mask_text(artifact.url)}" is a page, not the file itself'
            yield Problem("page-url", message, setting, hint=hint)
        elif kind := other_format(name):
            certain: Literal["error", "warning"] = "warning" if name.lower().endswith(".bin") else "error"
            message = f'{setting}: "{name}" is {kind}, judged by its name'
            yield Problem("not-gguf", message, setting, hint=GGUF_HINT, severity=certain)
        else:
            yield from _part(setting, name)


def _part(setting: str, name: str) -> Iterator[Problem]:
    number, count = part_of(name)
    if number > 1:
        message = f'{setting}: "{name}" is part {number} of {count}'
        hint = "give the first part, whose name has -00001-of-; the others are downloaded with it"
        yield Problem("model-split", message, setting, hint=hint)


def _instead_of_page(path: str, url: str) -> str:
    """Return what to write instead of the URL of a hub's page; "" for the URL of a file."""
    parts = urlsplit(url)
    host, words = (parts.hostname or "").removeprefix("www."), [word for word in parts.path.split("/") if word]
    if host in _FORGES:
        return "use the URL of its raw or download button" if "blob" in words[2:4] else ""
    if host not in _HUB_HOSTS or "resolve" in words[2:4] or words[:1] == ["api"]:
        return ""
    if len(words) < 2 or words[0] in _HUB_SECTIONS:
        return f"set {path}.hf to a repository and a file in it"
    repository = f"{words[0]}/{words[1].partition(':')[0]}"
    if len(words) < 5 or words[2] not in ("blob", "raw"):
        return f"set {path}.hf: {{repo: {repository}, file: FILE}}"
    revision = "" if words[3] == "main" else f", revision: {words[3]}"
    return f"set {path}.hf: {{repo: {repository}, file: {unquote('/'.join(words[4:]))}{revision}}}"


_HUB_HOSTS = ("huggingface.co", "hf.co")
_HUB_SECTIONS = ("blog", "collections", "datasets", "docs", "models", "papers", "spaces")
_FORGES = ("github.com", "gitlab.com", "codeberg.org")


def tokens(settings: Settings) -> Iterator[Problem]:
    """`token_env` has an effect only on downloads."""
    for path, artifact in artifacts_of(settings.model):
        found = sources_of(artifact)
        if artifact.token_env and found and not set(found) & set(DOWNLOADED):
            message = f"{path}.token_env: has no effect, {path}.{found[0]} is not downloaded"
            yield Problem("no-effect", message, f"{path}.token_env", severity="warning")


def aliases(settings: Settings) -> Iterator[Problem]:
    """Aliases are distinct, and llama-server separates them by commas."""
    for alias, number in Counter(settings.model.aliases).items():
        if number > 1:
            yield Problem("duplicate-alias", f'model.aliases: "{alias}" is given twice', "model.aliases")
        if "," in alias:
            message = f'model.aliases: "{alias}" contains a comma'
            yield Problem("bad-alias", message, "model.aliases", hint="write one list item per alias")


def variants(settings: Settings) -> Iterator[Problem]:
    """Scales of a variant are those of the adapters that the model has."""
    for name, variant in settings.model.variants.items():
        place = f"model.variants.{name}"
        adapters = len(settings.model.lora)
        if variant.lora is not None and len(variant.lora) != adapters:
            message = f"{place}.lora: {len(variant.lora)} scales for {adapters} adapters"
            yield Problem("bad-scales", message, f"{place}.lora", hint="give one scale for each item of model.lora")


def companions(settings: Settings) -> Iterator[Problem]:
    """A draft model needs a target model that generates text."""
    model, task = settings.model, settings.engine.task
    if model.draft is None:
        return
    if not sources_of(model):
        yield Problem("draft-without-target", "model.draft: there is no model for it to speed up", "model.draft")
    elif task != "generate":
        message = f"model.draft: a draft model speeds up generation, but engine.task is {task}"
        yield Problem("draft-without-target", message, "model.draft", hint="remove it")
    if sources_of(model.draft) and _same(model, model.draft):
        yield Problem("draft-is-model", "model.draft: is the model itself", "model.draft", hint="use a smaller one")


def _same(left: Artifact, right: Artifact) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in SOURCES)
