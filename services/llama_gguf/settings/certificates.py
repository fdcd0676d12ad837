"""Which certificate authorities are trusted for downloads: those of the variables, else the system's.

The only reader of these variables, because each HTTP library reads others. Reads files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.errors import ConfigError
from llama_gguf.settings.environment_value import clean

if TYPE_CHECKING:
    import ssl

_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_DIRECTORIES = "SSL_CERT_DIR"
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


def trusted_by(env: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context for connections to servers. Raises ConfigError where a variable names nothing usable."""
    import ssl  # noqa: PLC0415 - 10 ms that most commands do not need

    sources = _sources(env)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if sources else ssl.create_default_context()
    for variable, path in sources:
        _load(context, variable, path)
    return context


def _sources(env: Mapping[str, str]) -> list[tuple[str, Path]]:
    files = [(name, text) for name in _FILES if (text := clean(env.get(name, "")).text)][:1]
    directories = [(_DIRECTORIES, text) for text in clean(env.get(_DIRECTORIES, "")).text.split(os.pathsep) if text]
    return [(variable, Path(text)) for variable, text in files + directories]


def _load(context: ssl.SSLContext, variable: str, path: Path) -> None:
    import ssl  # noqa: PLC0415 - as above

    try:
        if path.is_dir():
            if not any(_HASHED.fullmatch(name) for name in os.listdir(path)):  # noqa: PTH208 - names are enough
                raise ConfigError(
                    f"{variable}: {path} has no certificates under the names that OpenSSL looks for",
                    hint=f"run `openssl rehash {path}`, or name a file in SSL_CERT_FILE",
                )
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{variable}: {path} has no valid certificates in PEM format", hint="convert it, or unset the variable"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{variable}: {path} cannot be read: {error.strerror}", hint="correct the path, or unset the variable"
        ) from error
