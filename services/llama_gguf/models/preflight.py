"""What would stop a download, found without a network: for `check`, before a machine with a GPU is rented.

Only files that are not on disk yet are looked at. Reads the disk and the environment, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from llama_gguf.errors import ConfigError, Problem
from llama_gguf.models.inventory import all_wanted, file_status
from llama_gguf.models.network import Network, check_hub
from llama_gguf.models.source import AtUrl, OnHub, Wanted, plan_sources
from llama_gguf.models.token import (
    HUB_TOKENS,
    TOKEN_FILE_VARIABLE,
    Token,
    hub_token,
    missing_token_file,
    valid_token,
)
from llama_gguf.settings import Locations, Settings
from llama_gguf.settings.environment_value import QUOTES_HINT, clean
from llama_gguf.settings.hosts import is_loopback

DEFAULT_HUB = "https://huggingface.co"
_ENDPOINT = "HF_ENDPOINT"


def download_problems(settings: Settings, locations: Locations, env: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the environment for the files that are to be downloaded, each once."""
    network = Network(env)
    found: dict[str, Problem] = {}
    for wanted in all_wanted(plan_sources(settings.model, locations, env)):
        if not file_status(wanted).present:
            for problem in _problems(wanted, network, env):
                found.setdefault(problem.message, problem)
    return list(found.values())


def _problems(wanted: Wanted, network: Network, env: Mapping[str, str]) -> Iterator[Problem]:
    match wanted.origin:
        case OnHub():
            # As it is, quotes included: huggingface_hub reads it itself.
            setting, url = f"{wanted.setting}.hf", env.get(_ENDPOINT) or DEFAULT_HUB
            if wrong := list(_failure("bad-url", setting, lambda: check_hub(url))):
                yield from wrong
                return
            yield from _hub_token(wanted, url, setting, env)
        case AtUrl(url, _):
            setting = f"{wanted.setting}.url"
        case _:
            return
    if wanted.token_env:
        yield from _failure("bad-token", setting, lambda: valid_token(wanted.token_env or "", env))
    yield from _failure("bad-proxy", setting, lambda: network.proxy(url))
    if url.startswith("https:"):
        yield from _failure("bad-certificates", setting, lambda: network.ssl_context)


def _hub_token(wanted: Wanted, url: str, setting: str, env: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with the token that the hub's own tools use, if it is used."""
    if wanted.token_env:
        return
    if missing := missing_token_file(env):
        hint = "correct the path, or unset it if the model needs no token"
        yield Problem(
            "token-file-missing",
            f"{TOKEN_FILE_VARIABLE}: {missing} does not exist",
            setting,
            "",
            hint=hint,
            severity="warning",
        )
    found: list[Token | None] = []
    yield from _failure("bad-token", setting, lambda: found.append(hub_token(env)))
    variable = next((name for name in HUB_TOKENS if clean(env.get(name, "")).text), None)
    if variable and (removed := clean(env[variable]).removed):
        message = f"{variable}: {removed} around the value are ignored"
        yield Problem("quoted-variable", message, setting, hint=QUOTES_HINT, severity="warning")
    source = variable or next((token.source for token in found if token), None)
    if source and url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        message = f"{source}: the token would be sent unencrypted, {_ENDPOINT} is an http:// URL"
        yield Problem("token-unencrypted", message, setting, hint="use https://", severity="warning")


def _failure(code: str, setting: str, check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except ConfigError as error:
        yield Problem(code, error.message, setting, hint=error.hint)
