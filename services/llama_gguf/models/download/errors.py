"""Failures of a download, as the ModelError that an operator reads. Pure."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gguf.errors import ModelError
from llama_gguf.models.download.spec import Remote
from llama_gguf.models.server_message import is_transient, server_says

if TYPE_CHECKING:  # an engine whose model is on disk does not import an HTTP client
    from llama_gguf.models.download.http_client import DownloadInterruptedError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def disk_error(path: Path, error: OSError) -> ModelError:
    """Return the error for a failed write."""
    hint = "check the free space and the permissions of paths.models_dir"
    if error.errno == errno.EFBIG:
        hint = "its file system does not hold files of this size (FAT32: 4 GB): set paths.models_dir to another volume"
    return ModelError(
        f"{path}: cannot be written: {error.strerror or error}",
        code="disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "models_dir_not_writable",
        hint=hint,
        permanent=error.errno in _DISK_ERRORS,
    )


def no_space(directory: Path, needed: int, free: int) -> ModelError:
    """Return the error for too little free space; both numbers are bytes."""
    return ModelError(
        f"{directory}: the download needs {needed / 1e9:.1f} GB more, but only {free / 1e9:.1f} GB are free",
        code="disk_full",
        hint="free some space, or set paths.models_dir to a larger volume",
    )


def refused(remote: Remote, status: int, message: str, retry_after_seconds: float | None) -> ModelError:
    """Return the error for a response with an error status; `message` is the server's own, as it came."""
    label = remote.label
    said = server_says(message, [value.removeprefix("Bearer ") for value in remote.headers.values()])
    if status in (401, 403):
        hint = "set token_env to a variable with a valid token, and accept the model's licence if it has one"
        if remote.token_source:
            hint = (
                f"the token in {remote.token_source} is invalid, has expired or lacks the right to read this file; "
                "accept the model's licence if it has one"
            )
        return ModelError(f"{label}: access denied ({status}){said}", code="model_access_refused", hint=hint)
    if status in (404, 410):
        return ModelError(f"{label}: not found ({status}){said}", code="model_not_found", hint="check the URL")
    return ModelError(
        f"{label}: the server responded with {status}{said}",
        code="model_server_error",
        permanent=not is_transient(status),
        retry_after_seconds=retry_after_seconds,
    )


def interrupted(remote: Remote, error: DownloadInterruptedError) -> ModelError:
    """Return the error for a server that gives no complete response."""
    return ModelError(
        f"{remote.label}: {error}",
        code="model_unreachable",
        permanent=error.permanent,
        hint=error.hint,
        max_attempts=error.max_attempts,
    )


def check_published(remote: Remote, published: str) -> None:
    """Raise ModelError if the server publishes another SHA-256 than the expected one; "" if it publishes none."""
    if not published or remote.sha256 in (None, published):
        return
    setting = f"{remote.setting}.sha256: " if remote.setting else ""
    raise ModelError(
        f"{setting}{remote.label} has the SHA-256 {published} on the server, not {remote.sha256}",
        code="checksum_mismatch",
        hint="correct the expected SHA-256, or find out why the file has changed",
    )


def invalid_url(label: str) -> ModelError:
    """Return the error for a URL that is not valid."""
    return ModelError(f"{label}: invalid URL", code="bad_url")


def invalid_response(label: str, problem: str) -> ModelError:
    """Return the error for a response that contradicts the request, or an earlier response."""
    return ModelError(f"{label}: {problem}", code="bad_answer", permanent=False)


def not_gguf(label: str, content_type: str) -> ModelError:
    """Return the error for a file that does not start like a GGUF file."""
    return ModelError(
        f"{label}: the response is not a GGUF file but {content_type or 'of unknown type'}",
        code="model_not_gguf",
        hint="check that the URL is that of the file itself, and whether it needs a token (token_env)",
    )


def wrong_digest(label: str, found: str, wanted: str) -> ModelError:
    """Return the error for a complete file with another digest than expected."""
    return ModelError(
        f"{label}: has the SHA-256 {found}, not {wanted}",
        code="checksum_mismatch",
        hint="correct the expected SHA-256, or find out why the file has changed",
    )
