"""What the reference says of the routes."""

from __future__ import annotations

from llama_gguf.cli.generate.reference_gateway import routes_section
from llama_gguf.gateway.api.routes import ROUTES


def test_the_table_lists_every_route() -> None:
    rows = [line.split(" | ") for line in routes_section().splitlines() if line.startswith("| ")][2:]
    assert [(method.removeprefix("| "), path.strip("`")) for method, path, *_ in rows] == [
        (route.method, route.template) for route in ROUTES
    ]
    assert ["| POST", "`/v1/chat/completions`", "chat", "inference"] in [row[:4] for row in rows]
    assert all(row[4].removesuffix(" |") for row in rows)
