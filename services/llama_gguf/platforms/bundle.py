"""The result of rendering: files by name and warnings; and its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llama_gguf.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Bundle:
    """Rendered files by relative path, in the order to read them, with warnings about what they do not carry over."""

    files: dict[str, str]
    warnings: tuple[Problem, ...] = ()


@dataclass(slots=True)
class Findings:
    """Collects every problem of one rendering, so that all are reported at once."""

    platform: str
    problems: list[Problem] = field(default_factory=list)

    def error(self, code: str, path: str, message: str, hint: str) -> None:
        """Report that the platform cannot express the setting at `path` ("": an option of the command)."""
        self._add(code, path, message, hint, "error")

    def warn(self, code: str, path: str, message: str, hint: str = "") -> None:
        """Report that the platform treats the setting at `path` differently than expected."""
        self._add(code, path, message, hint, "warning")

    def _add(self, code: str, path: str, message: str, hint: str, severity: Literal["error", "warning"]) -> None:
        source = "" if path else f"render {self.platform}"  # the line of a setting is looked up later
        problem = Problem(code, message, path=path, source=source, hint=hint, severity=severity)
        if problem not in self.problems:
            self.problems.append(problem)

    def finish(self, files: dict[str, str]) -> Bundle:
        """Return the bundle, or raise ConfigError with every problem when one of them is an error."""
        errors = [problem for problem in self.problems if problem.severity == "error"]
        if errors:
            count = "one thing" if len(errors) == 1 else f"{len(errors)} things"
            raise ConfigError(
                f"{self.platform} cannot express {count} in this configuration",
                problems=tuple(self.problems),
                hint=errors[0].hint,
            )
        return Bundle(files, tuple(self.problems))
