"""What can go wrong with a download, as the ModelError that an operator reads. Pure."""

from __future__ import annotations

import errno
from pathlib import Path

from llama_gguf.errors import ModelError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def disk_error(path: Path, error: OSError) -> ModelError:
    """Return the error for a disk that does not do what it is told."""
    return ModelError(
        f"{path}: cannot be written: {error.strerror or error}",
        code="disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "models_dir_not_writable",
        hint="check the space and the permissions of paths.models_dir",
        permanent=error.errno in _DISK_ERRORS,
    )


def no_room(directory: Path, needed: int, free: int) -> ModelError:
    """Return the error for a volume that is too small; both numbers are bytes."""
    return ModelError(
        f"{directory}: {needed / 1e9:.1f} GB are still to come, only {free / 1e9:.1f} GB are free",
        code="disk_full",
        hint="free some space, or set paths.models_dir to a larger volume",
    )


def refused(label: str, status: int, *, permanent: bool) -> ModelError:
    """Return the error for an answer with a status that means there will be no file."""
    if status in (401, 403):
        return ModelError(
            f"{label}: access refused ({status})",
            code="model_access_refused",
            hint="name the variable with a valid token in token_env, and accept the model's licence if it has one",
        )
    if status in (404, 410):
        return ModelError(f"{label}: not there ({status})", code="model_not_found")
    return ModelError(f"{label}: the server answered {status}", code="model_server_error", permanent=permanent)


def unreachable(label: str, reason: str, *, permanent: bool) -> ModelError:
    """Return the error for a server that gives no whole answer."""
    return ModelError(f"{label}: {reason}", code="model_unreachable", permanent=permanent)


def bad_address(label: str) -> ModelError:
    """Return the error for an address that cannot be asked."""
    return ModelError(f"{label}: no usable address", code="bad_url")


def bad_answer(label: str, problem: str) -> ModelError:
    """Return the error for an answer that contradicts the question, or an earlier one."""
    return ModelError(f"{label}: {problem}", code="bad_answer", permanent=False)


def not_gguf(label: str, content_type: str) -> ModelError:
    """Return the error for a file that begins like no model."""
    return ModelError(
        f"{label}: answers with {content_type or 'something else'}, not with a GGUF file",
        code="model_not_gguf",
        hint="is it the address of the file itself, and does it need a token (token_env)?",
    )


def wrong_digest(label: str, found: str, wanted: str) -> ModelError:
    """Return the error for a whole file with other bytes than expected."""
    return ModelError(
        f"{label}: has the SHA-256 {found}, not {wanted}",
        code="checksum_mismatch",
        hint="correct the expected SHA-256, or find out who changed the file",
    )
