"""When an engine or a command last used a file: the time of a small marker for each, below the models directory.

Not the file's own access time, which many volumes do not record.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from llama_gguf.logs import fields

log = logging.getLogger(__name__)

_DIRECTORY = ".last-use"


class LastUse:
    """The markers in one directory. A volume that cannot be written to has none."""

    def __init__(self, models_dir: Path) -> None:
        self._directory = models_dir / _DIRECTORY

    def record(self, path: Path) -> None:
        """Record that `path` is used now."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._marker(path).touch()
        except OSError as error:
            log.debug("cannot record the last use", extra=fields(path=str(path), reason=error.strerror))

    def seconds(self, path: Path) -> float | None:
        """Return when `path` was last used, in seconds since the epoch; None if that is not recorded."""
        try:
            return self._marker(path).stat().st_mtime
        except OSError:
            return None

    def forget(self, path: Path) -> None:
        """Remove the record of a file that is removed."""
        try:
            self._marker(path).unlink(missing_ok=True)
        except OSError as error:
            log.debug("cannot remove the record of a last use", extra=fields(path=str(path), reason=error.strerror))

    def _marker(self, path: Path) -> Path:
        real = os.path.realpath(path)
        return self._directory / hashlib.sha256(os.fsencode(real)).hexdigest()[:32]
