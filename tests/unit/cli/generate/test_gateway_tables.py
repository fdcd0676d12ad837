"""What the reference says of the routes."""

from __future__ import annotations

from llama_gguf.cli.generate.gateway_tables import route_rows


def test_the_table_lists_every_route() -> None:
    rows = route_rows()
    assert ("POST", "/v1/chat/completions", "inference") in {(row.method, row.path, row.scope) for row in rows}
    assert all(row.summary for row in rows)
    assert len({(row.method, row.path) for row in rows}) == len(rows)
