"""What was changed in a request's body before the engine gets it, and what its client is told of that. Pure."""

from __future__ import annotations

MAX_WARNINGS = 8


class Changes:
    """Collects the changes of one body. `changed`: the engine must get the body written anew."""

    __slots__ = ("changed", "warnings")

    def __init__(self) -> None:
        self.changed = False
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Tell the client something that is not an error, in a `Warning` header of the response; at most 8 of them."""
        if len(self.warnings) < MAX_WARNINGS and text not in self.warnings:
            self.warnings.append(text)
