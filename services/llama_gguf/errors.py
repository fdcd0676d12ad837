"""The exceptions that the appliance raises, with their exit codes.

Owns the hierarchy and the exit codes. Imports nothing of ours and renders nothing: `cli` prints them. The errors that
clients of the gateway get are in `api_errors`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal


class ExitCode(enum.IntEnum):
    """Exit codes of `llama-gguf` and of the programs it supervises (the numbers of BSD's sysexits.h)."""

    OK = 0
    USAGE = 64  # the command line is wrong
    UNAVAILABLE = 69  # a program could not stay up, or a model could not be obtained
    INTERNAL = 70  # a bug in the appliance
    DOES_NOT_FIT = 71  # the plan needs more memory than there is
    TEMPORARY = 75  # another instance holds the run directory or a lock; try again
    CONFIG = 78  # the configuration is wrong or names what cannot be used; a restart cannot help

    @property
    def meaning(self) -> str:
        """One sentence for the generated reference."""
        return _EXIT_MEANINGS[self]


_EXIT_MEANINGS = {
    ExitCode.OK: "Finished, or stopped as asked.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.UNAVAILABLE: "A program could not stay up, or the model could not be obtained; the reason is on stderr.",
    ExitCode.INTERNAL: "A defect in the appliance; please report it with the diagnostics.",
    ExitCode.DOES_NOT_FIT: "What was planned needs more memory than the machine has; `plan` says what to change.",
    ExitCode.TEMPORARY: "Something else holds a lock or the run directory; try again.",
    ExitCode.CONFIG: "The configuration is wrong, or names what cannot be used, such as a damaged model file; "
    "the place and the fix are on stderr.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning in a configuration, with its location.

    `line` and `column` count from 1; both are 0 where the source is no file (an environment variable, a command-line
    flag), and `source` names it.
    """

    code: str
    message: str
    path: str = ""  # dotted path of the setting, "" for the document as a whole
    source: str = ""  # file name as given by the user, "environment variable X", "--set"
    line: int = 0
    column: int = 0
    end_column: int = 0  # exclusive; 0 = one character
    hint: str = ""  # what to do about it, or a did-you-mean
    severity: Literal["error", "warning"] = "error"


class LlamaGgufError(Exception):
    """Base class of all of them: what went wrong, and what to do about it."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(LlamaGgufError):
    """The configuration cannot be used. Carries every problem found, not only the first."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, *, problems: tuple[Problem, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class KeysError(LlamaGgufError):
    """The keys file cannot be read or changed, or an operation on it is invalid."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ModelError(LlamaGgufError):
    """The weights cannot be obtained or used. `permanent` says that a retry cannot help.

    For others, the server can have said when to retry, and `max_attempts` is the number after which it is unlikely.
    """

    exit_code = ExitCode.UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        permanent: bool = True,
        retry_after_seconds: float | None = None,
        max_attempts: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds
        self.max_attempts = max_attempts
        if permanent:
            self.exit_code = ExitCode.CONFIG


class LaunchError(LlamaGgufError):
    """The appliance cannot start or cannot stay up."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.UNAVAILABLE) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ApplianceError(LlamaGgufError):
    """A running appliance cannot be asked something, or did not do it."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.UNAVAILABLE) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
