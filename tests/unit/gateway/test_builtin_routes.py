"""The gateway's own routes, and who may do what, through the real app."""

from __future__ import annotations

import asyncio
import json
import re

from llama_gguf.rundir import engine_variant
from llama_gguf.rundir.engine_variant import EngineVariant, Rejected
from llama_gguf.states import EngineState
from support.gateway_box import ADMIN_KEY, KEY, default_keys, key_record
from support.http_client import request_bytes
from support.running_gateway import Running, Start, chat


async def test_ping_and_livez_are_empty_and_open(running: Running) -> None:
    for path in ("/ping", "/livez", "/ping?x=1"):
        answer = await running.ask("GET", path, key=None)
        assert (answer.status, answer.body) == (200, b"")


async def test_health_tells_states_and_nothing_of_keys(running: Running) -> None:
    await running.until(lambda: running.gateway.backends.first.engine.state == "ready")
    answer = await running.ask("GET", "/health", key=None)
    assert answer.json() == {
        "status": "ready",
        "engine": {"status": "ready", "restarts": 0, "cpu_variant": None},
        "gateway": {"status": "ready", "in_flight": 0},
        "queue": {"max": 2, "active": 0, "waiting": 0},
        "auth": {"enabled": True, "keys_ok": True},
    }


async def test_health_and_metrics_name_the_variant_of_the_engines_code(running: Running) -> None:
    record = EngineVariant("zen4", 7, rejected=(Rejected("sapphirerapids", "", 6),))
    await asyncio.to_thread(engine_variant.write, record, running.box.shot.locations.run.engine_variant)
    await running.until(lambda: running.gateway.backends.first.engine.variant == record)
    shown = (await running.ask("GET", "/health", key=None)).json()["engine"]["cpu_variant"]
    assert shown == {"name": "zen4", "pinned": False, "rejected": ["sapphirerapids"]}
    metrics = (await running.ask("GET", "/metrics", key=ADMIN_KEY, headers={"Accept": "application/json"})).json()
    (sample,) = metrics["llama_gguf_engine_cpu_variant"]["samples"]
    assert (sample["labels"]["variant"], sample["value"]) == ("zen4", 1)
    (sample,) = metrics["llama_gguf_engine_cpu_variants_rejected"]["samples"]
    assert sample["value"] == 1


async def test_a_broken_keys_file_shows_in_health_and_keeps_the_keys(running: Running) -> None:
    path = running.box.shot.locations.keys_file
    await asyncio.to_thread(path.write_text, "{broken")
    reload = await running.ask("POST", "/reload", key=ADMIN_KEY)
    assert (reload.status, reload.error["code"]) == (500, "keys_unusable")
    assert str(path) not in reload.error["message"]
    assert (await running.ask("GET", "/health")).json()["auth"]["keys_ok"] is False
    assert (await running.chat()).status == 200


async def test_reload_takes_new_keys(running: Running) -> None:
    new = "sk-new-" + "n" * 30
    assert (await running.ask("GET", "/v1/models", key=new)).status == 401
    await asyncio.to_thread(running.box.write_keys, [*default_keys(), key_record("new", new)])
    answer = await running.ask("POST", "/reload", key=ADMIN_KEY)
    assert answer.json() == {"status": "ok", "keys_loaded": 3}
    assert (await running.ask("GET", "/v1/models", key=new)).status == 200


async def test_only_admins_may_reload(running: Running) -> None:
    assert (await running.ask("POST", "/reload", key=None)).status == 401
    assert (await running.ask("POST", "/reload", key=KEY)).status == 403
    assert (await running.ask("GET", "/reload", key=ADMIN_KEY)).status == 405


async def test_metrics_as_text_and_as_json(running: Running) -> None:
    await running.chat(tokens=5)
    await running.lines(1)
    text = await running.ask("GET", "/metrics", key=None, headers={"Accept": "text/plain"})
    assert text.headers["content-type"].startswith("text/plain")
    assert b"llama_gguf_requests_total{" in text.body
    assert b"llamacpp:n_decode_total 7" in text.body
    assert b'route="/v1/chat/completions"' in text.body
    as_json = await running.ask("GET", "/metrics", key=None, headers={"Accept": "application/json"})
    assert as_json.json()["llama_gguf_completion_tokens_total"]["samples"][0]["value"] == 5


async def test_metrics_can_want_a_key(start: Start) -> None:
    running = await start({"metrics": {"require_key": True, "engine_series": False}})
    assert (await running.ask("GET", "/metrics", key=None)).status == 401
    assert (await running.ask("GET", "/metrics", key=KEY)).status == 403
    answer = await running.ask("GET", "/metrics", key=ADMIN_KEY, headers={"Accept": "text/plain"})
    assert answer.status == 200
    assert b"llamacpp:" not in answer.body


PROXIED = {
    "X-Forwarded-For": "127.0.0.1",
    "Forwarded": "for=127.0.0.1",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "::1",
    "Via": "1.1 proxy",
    "CF-Connecting-IP": "127.0.0.1",
    "X-Envoy-Internal": "true",
}


async def test_metrics_are_for_programs_of_this_machine_and_for_keys(running: Running) -> None:
    assert (await running.ask("GET", "/metrics", key=None)).status == 200
    assert (await running.ask("GET", "/metrics", key="sk-wrong-0000000000000000000000")).status == 200
    for name, value in PROXIED.items():
        proxied = await running.ask("GET", "/metrics", key=None, headers={name: value})
        assert (proxied.status, proxied.error["code"]) == (401, "invalid_api_key"), name
        assert (await running.ask("GET", "/metrics", key=KEY, headers={name: value})).status == 403
        assert (await running.ask("GET", "/metrics", key=ADMIN_KEY, headers={name: value})).status == 200


async def test_metrics_can_be_open_to_all(start: Start) -> None:
    running = await start({"metrics": {"require_key": False}})
    assert (await running.ask("GET", "/metrics", key=None, headers=PROXIED)).status == 200


async def test_metrics_cost_the_engine_nothing_when_asked_often(running: Running) -> None:
    await asyncio.gather(*(running.ask("GET", "/metrics", key=None) for _ in range(30)))
    assert sum(seen.target == "/metrics" for seen in running.engine.asked) < 30


async def test_metrics_without_an_engine_still_answer(running: Running) -> None:
    await running.engine.stop()
    answer = await running.ask("GET", "/metrics", key=None, headers={"Accept": "text/plain"})
    assert answer.status == 200


async def test_models_show_aliases_and_no_paths(start: Start) -> None:
    running = await start({"model": {"aliases": ["nice", "also/nice"]}})
    await running.until(lambda: running.gateway.backends.first.engine.state is EngineState.READY)
    answer = await running.ask("GET", "/v1/models")
    assert [entry["id"] for entry in answer.json()["data"]] == ["nice", "also/nice"]
    assert answer.json()["data"][0]["meta"] == {"n_ctx_train": 2048, "n_params": 9}
    assert b"secret" not in answer.body
    assert b".gguf" not in answer.body
    for path in ("/v1/models/also%2Fnice", "/v1/models/also/nice"):
        assert (await running.ask("GET", path)).json()["id"] == "also/nice"
    missing = await running.ask("GET", "/v1/models/other")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


async def test_properties_show_the_alias_and_no_paths(start: Start) -> None:
    running = await start({"gateway": {"routes": ["props"]}, "model": {"aliases": ["nice"]}})
    answer = await running.ask("GET", "/props")
    assert answer.json() == {"model_alias": "nice", "model_path": "nice", "total_slots": 2}
    closed = await start()
    assert (await closed.ask("GET", "/props")).status == 403
    assert (await closed.ask("GET", "/props", key=ADMIN_KEY)).json()["total_slots"] == 2
    assert b'"/props"' in await asyncio.to_thread(closed.box.shot.locations.audit_file.read_bytes)


async def test_admin_routes_are_audited_and_closed_to_others(running: Running) -> None:
    assert (await running.ask("GET", "/slots", key=KEY)).status == 403
    seen = await running.ask("GET", "/slots", key=ADMIN_KEY)
    assert seen.json()[0]["target"] == "/slots"
    saved = await running.ask("POST", "/slots/1?action=save", key=ADMIN_KEY, body={"filename": "x"})
    assert saved.json()[0]["target"] == "/slots/1?action=save"
    assert (await running.ask("POST", "/slots/1?action=erase", key=ADMIN_KEY)).status == 200
    metrics = await running.ask("GET", "/engine/metrics", key=ADMIN_KEY)
    assert metrics.body.startswith(b"# HELP llamacpp:")
    text = await asyncio.to_thread(running.box.shot.locations.audit_file.read_text)
    entries = [json.loads(line) for line in text.splitlines()]
    assert [(entry["actor"], entry["action"], entry["target"]) for entry in entries] == [
        ("boss", "engine.get", "/slots"),
        ("boss", "engine.post", "/slots/1"),
        ("boss", "engine.post", "/slots/1"),
        ("boss", "engine.get", "/engine/metrics"),
    ]


async def test_what_cannot_be_audited_is_not_done(running: Running) -> None:
    path = running.box.shot.locations.audit_file
    await asyncio.to_thread(path.mkdir)
    answer = await running.ask("GET", "/slots", key=ADMIN_KEY)
    assert (answer.status, answer.error["code"]) == (500, "audit_unavailable")
    assert not running.engine.asked


async def test_requests_in_flight_are_those_of_others(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(hang_after=-1)))
    await running.until(lambda: bool(running.engine.asked))
    assert (await running.ask("GET", "/health", key=None)).json()["gateway"]["in_flight"] == 1
    text = (await running.ask("GET", "/metrics", key=None)).body.decode()
    assert re.search(r"^llama_gguf_requests_in_flight\{.*\} 1.0$", text, re.MULTILINE)
    writer.close()
