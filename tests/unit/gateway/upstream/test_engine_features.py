"""An engine that cannot keep keys' prompts apart is told to reuse none while there are several keys."""

from __future__ import annotations

import json

import pytest

from support.gateway_box import ADMIN_KEY, default_keys
from support.running_gateway import Start, chat


async def test_ours_gets_the_clients_own_bytes_and_is_asked_once(start: Start) -> None:
    running = await start()
    for key in (None, ADMIN_KEY, None):
        answer = await (
            running.chat() if key is None else running.ask("POST", "/v1/chat/completions", body=chat(), key=key)
        )
        assert answer.status == 200
    assert [json.loads(seen.body) for seen in running.engine.asked] == [chat()] * 3
    assert [seen.target for seen in running.engine.seen].count("/usage?id=") == 1


async def test_another_one_is_told_to_reuse_nothing(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = await start(scopes=False)
    for _ in range(3):
        assert (await running.chat()).status == 200
    assert [json.loads(seen.body)["cache_prompt"] for seen in running.engine.asked] == [False] * 3
    assert caplog.text.count("cannot keep the prompts of different keys apart") == 1


async def test_with_one_key_there_is_nobody_to_keep_apart(start: Start) -> None:
    running = await start(scopes=False)
    running.box.write_keys(default_keys()[:1])
    await running.gateway.reload_keys()
    assert (await running.chat()).status == 200
    assert json.loads(running.engine.asked[0].body) == chat()


async def test_with_the_setting_none_nothing_is_asked_or_changed(start: Start) -> None:
    running = await start({"limits": {"cache_isolation": "none"}}, scopes=False)
    assert (await running.chat()).status == 200
    assert json.loads(running.engine.asked[0].body) == chat()
    assert "x-cache-scope" not in running.engine.asked[0].headers
