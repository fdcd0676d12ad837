"""The documentation site, for Sphinx: which pages, in which order, and how they look.

Sphinx with MyST, because what it builds needs no network and no server: search works in pages opened as files, diagrams
are pictures when they arrive, and `-W` makes every dead link an error. (Material for MkDocs is only maintained any
more, and MkDocs itself rests.) The pages are the repository's own files, at their own paths, so a link that works on
the site works in the repository too.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llama_gguf import __version__  # noqa: E402 - the line above comes first

navigation = {
    "Use": (
        "README",
        "image/README",
        "docs/several-models",
        "docs/tls",
        "docs/operating",
        "docs/migration",
        "CHANGELOG",
    ),
    "Look up": ("schema/reference", "docs/api", "docs/memory-accuracy"),
    "Understand": ("docs/architecture", "docs/threat-model", "SECURITY"),
    "Change": ("CONTRIBUTING", "tests/bench/README"),
}

project = "llama-gguf-inference"
version = release = __version__
html_title = f"{project} {version}"
language = "en"

root_doc = "README"
include_patterns = [f"{page}.md" for pages in navigation.values() for page in pages] + ["docs/*.md"]
exclude_patterns = [".*", "build", "services", "image/[!R]*", "tests/[!b]*"]

extensions = ["myst_parser", "sphinx_copybutton", "docs.site.extension"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
copybutton_exclude = ".linenos, .c1"  # no comments behind commands

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
