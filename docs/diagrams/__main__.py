"""Writes the diagrams of docs/architecture.md: `python -m docs.diagrams`, as `make gen` does.

A diagram stands between two lines of comment that name the module which draws it; the text around is written by hand.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "architecture.md"
_DIAGRAM = re.compile(
    r"(?P<begin><!-- diagram: docs/diagrams/(?P<module>\w+)\.py -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL
)


def diagrams_in(page: str) -> dict[str, str]:
    """Return the diagrams of a page as they stand there, by the module that draws them."""
    return {found["module"]: found["body"] for found in _DIAGRAM.finditer(page)}


def drawn(module: str) -> str:
    """Return the diagram of a module as it should stand in a page."""
    return f"```mermaid\n{importlib.import_module(f'docs.diagrams.{module}').draw()}\n```\n"


def main() -> int:
    """Draw everything again."""
    page = PAGE.read_text(encoding="utf-8")
    new = _DIAGRAM.sub(lambda found: found["begin"] + drawn(found["module"]) + found["end"], page)
    PAGE.write_text(new, encoding="utf-8")
    sys.stdout.write(f"docs/{PAGE.name}{'' if new != page else ' (as it was)'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
