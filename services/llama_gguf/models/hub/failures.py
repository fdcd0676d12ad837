"""What goes wrong between us and the hub, as the ModelError that an operator reads.

The border to huggingface_hub's exceptions and those of its HTTP client. Permanent is what the same request would get
again: a refused token, a redirect loop, a server that is no hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llama_gguf.errors import ModelError
from llama_gguf.models.network import FEW_ATTEMPTS, OWN_AUTHORITY_HINT
from llama_gguf.models.server_message import (
    is_transient,
    retry_after_seconds,
    server_says,
)
from llama_gguf.models.token import Token
from llama_gguf.settings.proxy import Proxy
from llama_gguf.settings.redaction import shown_variable

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


@dataclass(frozen=True, slots=True)
class Place:
    """Which file of which setting a request was for, and how it was sent."""

    setting: str
    repo: str
    name: str
    revision: str
    token_env: str | None
    token: Token | None = field(repr=False)
    proxy: Proxy | None

    @property
    def access_hint(self) -> str:
        """Where to put a token with access."""
        return f"set a token with access in {shown_variable(self.token_env or 'HF_TOKEN')}"

    def says(self, error: HfHubHTTPError) -> str:
        """Return the hub's own message, without our token."""
        return server_says(error.server_message or "", secrets=(self.token.value,) if self.token else ())


def no_such_file(place: Place, hint: str) -> ModelError:
    """Return the error for a repository that has no file of this name."""
    return ModelError(
        f"{place.setting}.hf.file: {place.repo}@{place.revision} has no {place.name}",
        code="model_not_found",
        hint=hint,
    )


def refused(place: Place, error: HfHubHTTPError) -> ModelError:
    """Return the error for a response with an error status."""
    from huggingface_hub import errors  # noqa: PLC0415 - imported by whoever caught `error`

    status, said = error.response.status_code, place.says(error)
    if isinstance(error, errors.GatedRepoError):
        terms = f"accept its terms at huggingface.co/{place.repo}"
        if place.token:
            who = f"the account of the token in {place.token.source}"
            message = f"{place.setting}.hf: {place.repo} is gated, and {who} has no access"
            return ModelError(message + said, code="model_access_refused", hint=f"{terms} with that account")
        message = f"{place.setting}.hf: {place.repo} is gated, and no token is set"
        return ModelError(message + said, code="model_access_refused", hint=f"{terms}, and {place.access_hint}")
    if isinstance(error, errors.RevisionNotFoundError):
        message = f"{place.setting}.hf.revision: {place.repo} has no {place.revision}"
        return ModelError(message, code="model_not_found")
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = f"check the name; if it is private, {place.access_hint}"
        access = f"the token in {place.token.source}" if place.token else "a request without a token"
        message = f"{place.setting}.hf.repo: {place.repo} does not exist on the Hub, or {access} has no access"
        return ModelError(message + said, code="model_not_found", hint=hint)
    return _by_status(place, status, said, retry_after_seconds(error.response.headers.get("Retry-After", "")))


def _by_status(place: Place, status: int, said: str, retry_after: float | None) -> ModelError:
    if status in (401, 403):
        code, label = "model_access_refused", f"{place.setting}.hf: the Hub"
        if place.token:
            hint = f"the token in {place.token.source} is invalid, has expired or lacks the right to read this model"
            return ModelError(f"{label} does not accept the token ({status}){said}", code=code, hint=hint)
        return ModelError(f"{label} denied access ({status}){said}", code=code, hint=place.access_hint)
    transient = is_transient(status)
    no_hub = "" if transient else "check HF_ENDPOINT and the proxy: this is not a response of a Hugging Face Hub"
    hint = "a token raises the Hub's limits: set HF_TOKEN" if status == 429 and not place.token else no_hub
    return ModelError(
        f"{place.setting}.hf: the Hub responded with {status} for {place.repo}/{place.name}@{place.revision}{said}",
        code="model_server_error",
        permanent=not transient,
        hint=hint,
        retry_after_seconds=retry_after,
    )


def of_network(proxy: Proxy | None) -> tuple[type[Exception], ...]:
    """Return what httpx2 raises, and lets through of the library by which it speaks to SOCKS proxies."""
    import httpx2  # noqa: PLC0415 - takes 0.2 s, and a model on disk does not need it

    failures = (httpx2.HTTPError, httpx2.InvalidURL, OSError)  # OSError: also huggingface_hub's own errors
    if proxy is None or proxy.scheme != "socks5":
        return failures
    import socksio  # noqa: PLC0415 - only where there is such a proxy

    return (*failures, socksio.SOCKSError)


def unreachable(place: Place, error: Exception) -> ModelError:
    """Return the error for a request that got no response."""
    import httpx2  # noqa: PLC0415 - as above

    if isinstance(error, httpx2.TooManyRedirects):
        return ModelError(
            f"{place.setting}.hf: the Hub redirects in a circle",
            code="model_unreachable",
            hint="check HF_ENDPOINT and the proxy",
        )
    through = f", through the proxy {place.proxy.description}" if place.proxy else ""
    text = server_says(str(error), secrets=()).removeprefix(": ") or type(error).__name__
    permanent = isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol)
    hint, attempts = "", None
    if isinstance(error, httpx2.ProxyError) and text[:3] in ("403", "407"):
        permanent = True
        if place.proxy and text[:3] == "407":
            hint = f"put the right user and password into {place.proxy.variable}"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        hint, attempts = OWN_AUTHORITY_HINT, FEW_ATTEMPTS
    elif is_unknown_name(text):
        hint, attempts = "check HF_ENDPOINT and the DNS of this machine", FEW_ATTEMPTS
    return ModelError(
        f"{place.setting}.hf: the Hub cannot be reached{through}: {text}",
        code="model_unreachable",
        permanent=permanent,
        hint=hint,
        max_attempts=attempts,
    )


def is_unknown_name(text: str) -> bool:
    """Return whether a message of the resolver says that a host does not exist; not that no server responded."""
    return "Name or service not known" in text or "No address associated with hostname" in text
