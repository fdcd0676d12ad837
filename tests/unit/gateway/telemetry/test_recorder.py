"""What metrics tell of ended requests."""

from __future__ import annotations

from typing import Any

from support.charging import GENEROUS
from support.fake_engine import CACHED_TOKENS
from support.running_gateway import Start


async def test_metrics_of_an_answer(start: Start) -> None:
    running = await start(GENEROUS)
    await running.stream(tokens=5, pause=0.01)
    await running.stream(die_after=-1)
    await running.lines(2)
    found = (await running.ask("GET", "/metrics", key=None, headers={"Accept": "application/json"})).json()

    def samples(name: str) -> list[dict[str, Any]]:
        return list(found[name]["samples"])

    by_outcome = {sample["labels"]["outcome"]: sample["value"] for sample in samples("llama_gguf_requests_total")}
    assert by_outcome["ok"] == 1
    assert by_outcome["upstream_error"] == 1
    assert samples("llama_gguf_time_to_first_token_seconds")[0]["count"] == 1
    assert samples("llama_gguf_inter_token_seconds")[0]["count"] == 4
    assert samples("llama_gguf_queue_wait_seconds")[0]["count"] == 2
    assert samples("llama_gguf_cached_prompt_tokens_total")[0]["value"] == CACHED_TOKENS
    assert samples("llama_gguf_requests_in_flight")[0]["value"] == 0  # itself left out
