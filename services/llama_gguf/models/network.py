"""How downloads reach a server: the proxy, the trusted authorities and the token of each request.

The one owner of all three for the hub's metadata and for the bytes of files, which two HTTP libraries fetch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_gguf.errors import ConfigError
from llama_gguf.logs import fields
from llama_gguf.models.token import HUB_TOKENS, Token, hub_token, missing_token_file, valid_token
from llama_gguf.settings.certificates import trusted_by
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.hosts import is_loopback
from llama_gguf.settings.proxy import Proxy, proxy_for
from llama_gguf.settings.redaction import shown_variable

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

FEW_ATTEMPTS = 3
"""For what hardly changes by itself: a host name that does not exist, a certificate of an unknown authority."""
OWN_AUTHORITY_HINT = "if its certificate is of an authority of your own, name that one's file in SSL_CERT_FILE"


def check_hub(url: str) -> None:
    """Raise ConfigError unless `url`, of HF_ENDPOINT, can be a hub's."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("HF_ENDPOINT: not an http:// or https:// URL", hint="write it without quotes, or unset it")


class Network:
    """Proxies, certificates and tokens as the environment has them. Invalid ones raise ConfigError when needed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def proxy(self, url: str) -> Proxy | None:
        """Return the proxy for a request to `url`, None for a direct connection."""
        return proxy_for(url, self._env)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The authorities to trust."""
        return trusted_by(self._env)

    def hub_token(self) -> Token | None:
        """Return the token that Hugging Face's own tools use, None without one."""
        if missing := missing_token_file(self._env):
            log.warning("the file with the hub's token does not exist", extra=fields(path=missing))
        for name in HUB_TOKENS:
            self._warn_of_quotes(name)
        return hub_token(self._env)

    def token(self, variable: str) -> str | None:
        """Return the token in `variable`, None if it is not set."""
        self._warn_of_quotes(variable)
        return valid_token(variable, self._env)

    def _warn_of_quotes(self, variable: str) -> None:
        if removed := clean(self._env.get(variable, "")).removed:
            log.warning("removed from around a token", extra=fields(variable=shown_variable(variable), removed=removed))

    def credentials(self, url: str, token: str | None) -> dict[str, str]:
        """Return the headers that send `token` to `url`; warn where others on the way can read it."""
        if not token:
            return {}
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            proxy = self.proxy(url)
            log.warning(
                "the token is sent unencrypted",
                extra=fields(host=parts.hostname or "", proxy=proxy.description if proxy else "none"),
            )
        return {"Authorization": f"Bearer {token}"}
