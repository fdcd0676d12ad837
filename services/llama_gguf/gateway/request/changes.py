"""What was changed in a request's body before the engine gets it, and what its client is told of that. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_gguf.gateway.http1.message import HeaderLines

MAX_WARNINGS = 8
_MAX_CHARACTERS = 200
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


class Changes:
    """Collects the changes of one body. `changed`: the engine must get the body written anew."""

    __slots__ = ("changed", "ruled", "warnings")

    def __init__(self) -> None:
        self.changed = False
        self.ruled: tuple[str, ...] = ()  # the parameters that the operator's rules changed
        self.warnings: list[str] = []

    def by_rules(self, name: str) -> None:
        """Note that the operator's rules have set, bounded or left out a parameter."""
        self.changed = True
        if name not in self.ruled:
            self.ruled += (name,)

    def warn(self, text: str) -> None:
        """Tell the client something that is not an error, in a `Warning` header of the response; at most 8 of them."""
        if len(self.warnings) < MAX_WARNINGS and text not in self.warnings:
            self.warnings.append(text)

    def header_lines(self) -> HeaderLines:
        """Return the warnings as lines of the response's head (RFC 7234 5.5, code 199: miscellaneous).

        They may quote the client's own words: what could end the line or the quotes is replaced.
        """
        texts = (_UNQUOTABLE.sub("?", text)[:_MAX_CHARACTERS] for text in self.warnings)
        return changed_lines(self.ruled) + "".join(f'Warning: 199 llama-gguf "{text}"\r\n' for text in texts)


def changed_lines(names: Sequence[str]) -> HeaderLines:
    """Return the header that tells a client which parameters the operator's rules have changed."""
    return f"X-Changed-Parameters: {', '.join(names)}\r\n" if names else ""
