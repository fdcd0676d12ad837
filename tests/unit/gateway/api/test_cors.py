"""Cross-origin rules: what an answer carries, and preflights, also through the gateway."""

from __future__ import annotations

from llama_gguf.gateway.api.cors import MAX_ORIGIN_BYTES, Cors
from support.running_gateway import Start, chat

SITE = "https://app.example"
LISTED = Cors([SITE], 600)


def test_off_by_default() -> None:
    off = Cors([], 600)
    assert off.headers(SITE.encode()) == []
    assert off.preflight(SITE.encode(), None, ["POST"]) == []


def test_a_listed_origin_is_named_and_caches_are_told() -> None:
    headers = dict(LISTED.headers(SITE.encode()))
    assert headers["Access-Control-Allow-Origin"] == SITE
    assert headers["Vary"] == "Origin"
    assert "X-Request-Id" in headers["Access-Control-Expose-Headers"]


def test_others_are_not_but_caches_are_told_all_the_same() -> None:
    for origin in (None, b"https://evil.example", SITE.encode() + b".evil", SITE.upper().encode(), b"null"):
        assert LISTED.headers(origin) == [("Vary", "Origin")]


def test_overlong_origins_are_ignored() -> None:
    long = "https://" + "a" * MAX_ORIGIN_BYTES
    assert Cors([long], 600).headers(long.encode()) == [("Vary", "Origin")]


def test_any_origin() -> None:
    headers = dict(Cors(["*"], 600).headers(b"https://who.ever"))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in headers


def test_preflight() -> None:
    headers = LISTED.preflight(SITE.encode(), b"authorization, x-stainless-os", ["POST"])
    found = dict(headers)
    assert found["Access-Control-Allow-Methods"] == "POST, OPTIONS"
    assert found["Access-Control-Allow-Headers"] == "authorization, x-stainless-os"
    assert found["Access-Control-Max-Age"] == "600"
    assert ("Vary", "Access-Control-Request-Headers") in headers


def test_preflight_repeats_only_sane_lists() -> None:
    for asked in (None, b"", b"x y", b"a\x0bb", b"a" * 3000, b"a,,b", b'"a"'):
        found = dict(LISTED.preflight(SITE.encode(), asked, ["GET"]))
        assert found["Access-Control-Allow-Headers"].startswith("Authorization")


def test_preflight_tells_others_nothing() -> None:
    assert LISTED.preflight(b"https://evil.example", b"authorization", ["POST"]) == [("Vary", "Origin")]


async def test_through_the_gateway(start: Start) -> None:
    running = await start({"gateway": {"cors": {"allow_origins": [SITE]}}})
    ours = {"Origin": SITE}
    preflight = await running.ask(
        "OPTIONS", "/v1/chat/completions", key=None, headers={**ours, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-methods"] == "POST, OPTIONS"
    for answer in (
        await running.ask("POST", "/v1/chat/completions", body=chat(), headers=ours),
        await running.ask("POST", "/v1/chat/completions", body=chat(stream=True), headers=ours),
        await running.ask("POST", "/v1/chat/completions", body=chat(status=400), headers=ours),
        await running.ask("GET", "/v1/models", key=None, headers=ours),
        await running.ask("GET", "/nope", headers=ours),
        await running.ask("GET", "/health", headers=ours),
    ):
        assert answer.headers["access-control-allow-origin"] == SITE, answer
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    other = await running.ask("POST", "/v1/chat/completions", body=chat(), headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_options_without_cors_is_204_and_says_nothing(start: Start) -> None:
    running = await start()
    answer = await running.ask("OPTIONS", "/v1/chat/completions", key=None, headers={"Origin": SITE})
    assert answer.status == 204
    assert not [name for name in answer.headers if name.startswith("access-control")]
