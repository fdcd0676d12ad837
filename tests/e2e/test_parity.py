"""What the system being replaced does, asked of ours from outside: an old deployment's variables, and every answer.

One appliance is started as an old container was: by its variables and its plaintext keys file alone. Where an engine
must misbehave, a gateway on real sockets stands before a fake one. tests/contract/parity.yaml says what proves what.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.appliance import COMMAND, Appliance
from support.gateway_box import ADMIN_KEY, KEY, default_keys, key_record, make_box, stopping
from support.http_client import Answer, ask, exchange, read_answer, request_bytes
from support.ports import free_ports
from support.running_gateway import Running, chat, running_gateway

ALICE, BOB, CAROL, DAVE, ERIN = (f"sk-old-{name}-{'0' * 32}" for name in ("alice", "bob", "carol", "dave", "erin"))
OLD_KEYS = f"""\
# keys of the old system
alice:{ALICE}

bob:{BOB}:2
carol:{CAROL}::2020-01-31T12:00:00+02:00
dave:{DAVE}:600:2099-01-31T12:00:00-05:00
"""
ORIGIN = "https://app.example"
MESSAGES = [{"role": "user", "content": "hi"}]


class Old:
    """An appliance that was started as the old system's container was."""

    def __init__(self, appliance: Appliance, keys_file: Path) -> None:
        self.appliance = appliance
        self.keys_file = keys_file

    async def ask(self, method: str, target: str, *, key: str | None = ALICE, **options: Any) -> Answer:
        return await ask(self.appliance.gateway_port, method, target, key=key, **options)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Old]:
    """Start `llama-gguf up` from the old variables, without a configuration file."""
    folder = tmp_path_factory.mktemp("old")
    run_dir = Path(tempfile.mkdtemp(prefix="lg")) / "run"  # short: it holds unix sockets
    models = folder / "models"
    models.mkdir()
    shutil.copy(tiny_model, models / "tiny.gguf")
    keys_file = folder / "api_keys.txt"
    keys_file.write_text(OLD_KEYS)
    keys_file.chmod(0o600)
    port, health_port = free_ports(2)
    env = {
        **os.environ,
        "HOME": str(folder),
        "MODEL_NAME": "tiny.gguf",
        "MODELS_DIR": str(models),
        "DATA_DIR": str(folder / "data"),
        "LOG_DIR": str(folder / "logs"),
        "LOG_NAME": "oldname",
        "LOG_FORMAT": "json",
        "WORKER_TYPE": "chatty",
        "INSTANCE_ID": "box-7",
        "NGL": "0",
        "CTX": "512",
        "THREADS": "1",
        "EXTRA_ARGS": "--no-warmup",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PORT_HEALTH": str(health_port),
        "PORT_BACKEND": "8080",
        "BACKEND_API_KEY": "not-used-any-more-0123456789",
        "AUTH_ENABLED": "true",
        "AUTH_KEYS_FILE": str(keys_file),
        "MAX_REQUESTS_PER_MINUTE": "500",
        "METRICS_AUTH_ENABLED": "yes",
        "CORS_ORIGINS": f"{ORIGIN},https://other.example",
        "MAX_CONCURRENT_REQUESTS": "1",
        "MAX_QUEUE_SIZE": "5",
        "MAX_REQUEST_BODY_SIZE": "20000",
        "MAX_HEADERS": "20",
        "MAX_HEADER_LINE_SIZE": "1000",
        "MAX_REQUEST_LINE_SIZE": "600",
        "GPU_LAYERS": "5",
        "LLAMA_GGUF__PATHS__RUN_DIR": str(run_dir),
        "LLAMA_GGUF__HEALTH__HOST": "127.0.0.1",
        "LLAMA_GGUF__HEALTH__CHECK_INTERVAL_SECONDS": "0.1",
        "LLAMA_GGUF__AUTH__RELOAD_INTERVAL_SECONDS": "60",  # what reloads here was asked for
    }
    with (folder / "stdout.txt").open("wb") as stdout, (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "up"], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=folder
        )
    appliance = Appliance(process, folder, run_dir, folder / "none", port, health_port, time.monotonic(), env)
    try:
        appliance.wait_ready()
        # The gateway looks at the engine for itself, a moment before or after the health server.
        appliance.wait_for(lambda: appliance.get("/health").json()["engine"]["status"] == "ready", 5, "seen by both")
        yield Old(appliance, keys_file)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(run_dir.parent, ignore_errors=True)


@asynccontextmanager
async def gateway(tmp_path: Path, changes: dict[str, Any] | None = None, **engine: Any) -> AsyncIterator[Running]:
    """A gateway in front of a fake engine that does as it is told."""
    async with running_gateway(tmp_path, {"auth": {"reload_interval_seconds": 60}, **(changes or {})}, engine) as found:
        yield found


# --- the appliance as an old deployment started it


async def test_the_gateways_ping_needs_no_key_and_takes_a_query(old: Old) -> None:
    for target in ("/ping", "/ping?x"):
        answer = await old.ask("GET", target, key=None)
        assert (answer.status, answer.body) == (200, b"")


async def test_health_tells_states_and_the_queue_and_nothing_of_keys(old: Old) -> None:
    answer = await old.ask("GET", "/health", key=None)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found["engine"]["status"] == "ready"
    assert found["gateway"]["status"] == "ready"
    assert found["queue"] == {"max": 1, "active": 0, "waiting": 0}
    assert found["auth"] == {"enabled": True, "keys_ok": True}
    assert "alice" not in answer.body.decode()


async def test_the_old_plaintext_keys_open_the_door_and_their_expiry_is_kept(old: Old) -> None:
    for key, status in ((ALICE, 200), (DAVE, 200), (CAROL, 401), (ERIN, 401)):
        assert (await old.ask("GET", "/v1/models", key=key)).status == status


async def test_a_key_may_come_in_three_ways(old: Old) -> None:
    for headers in (
        {"Authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
        {"Authorization": ALICE},
        {"x-api-key": ALICE},
        {"x-api-key": ALICE, "Authorization": "Bearer of-the-platform-in-front-0000"},
        {"x-api-key": "placeholder-of-a-client", "Authorization": f"Bearer {ALICE}"},
    ):
        assert (await old.ask("GET", "/v1/models", key=None, headers=headers)).status == 200, headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {base64.b64encode(f'alice:{ALICE}'.encode()).decode()}"},
        {"Authorization": f"Bearer {ALICE}, Bearer {ALICE}"},
        {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": f"Bearer {ALICE[:-1]}"},
        {"Authorization": f"Bearer {ALICE.upper()}"},
        {"Authorization": "Bearer alice"},
        {"Authorization": f"Bearer {ALICE}\xa0"},
        {"x-api-key": ERIN, "Authorization": f"Bearer {ALICE}x"},
        {"x-forwarded-authorization": f"Bearer {ALICE}"},
        {"Cookie": f"api_key={ALICE}"},
    ],
    ids=str,
)
async def test_anything_else_is_401(old: Old, headers: dict[str, str]) -> None:
    for method, target, body in (
        ("GET", f"/v1/models?api_key={ALICE}", None),
        ("POST", "/v1/chat/completions", {"messages": MESSAGES}),
    ):
        answer = await old.ask(method, target, key=None, headers=headers, body=body)
        assert answer.status == 401
        assert answer.error["code"] == "invalid_api_key"
        assert ALICE not in answer.body.decode()


async def test_two_keys_in_one_request_are_refused(old: Old) -> None:
    twice = f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: {ERIN}\r\nAuthorization: {ALICE}\r\n\r\n"
    (answer,) = await exchange(old.appliance.gateway_port, twice.encode())
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "target",
    [
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/V1/models",
        "/%76%31/models",
        "/v1/./models",
        "/ping/../v1/models",
        "/ping/..%2fv1/models",
        "/ping;/v1/models",
        "/v1/models;x",
        "/v1/models%00",
        "/v1/models#x",
        "/health/../slots",
        "a://b/ping",
        "*",
    ],
)
async def test_tricks_with_the_path_lead_nowhere(old: Old, target: str) -> None:
    for key in (None, ALICE):
        answer = await old.ask("GET", target, key=key)
        assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_an_absolute_target_needs_the_same_key(old: Old) -> None:
    for target in ("http://a/v1/models", "HTTPS://a:1/v1/models", "http://a?x=/v1/models"):
        assert (await old.ask("GET", target, key=None)).status == 401
    assert (await old.ask("GET", "http://a/v1/models", key=ALICE)).status == 200


CLOSED = (
    ("GET", "/slots"),
    ("POST", "/slots/0?action=erase"),
    ("POST", "/slots/0?action=save"),
    ("GET", "/props"),
    ("POST", "/props"),
    ("GET", "/lora-adapters"),
    ("POST", "/lora-adapters"),
    ("POST", "/models/load"),
    ("POST", "/models/unload"),
    ("GET", "/engine/metrics"),
    ("POST", "/reload"),
)


@pytest.mark.parametrize(("method", "target"), CLOSED)
async def test_what_shows_or_changes_the_work_of_others_is_closed_to_ordinary_keys(
    old: Old, method: str, target: str
) -> None:
    body: dict[str, Any] | None = {} if method == "POST" else None
    refused = await old.ask(method, target, body=body)
    assert (refused.status, refused.error["code"]) == (403, "insufficient_scope")
    assert (await old.ask(method, target, key=None, body=body)).status == 401
    if method == "GET":
        reader, writer = await asyncio.open_connection("127.0.0.1", old.appliance.gateway_port)
        writer.write(request_bytes("HEAD", target, key=ALICE))
        assert (await read_answer(reader, head_only=True)).status == 403
        writer.close()


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/completion": {"prompt": "a", "n_predict": 2},
    "/completions": {"prompt": "a", "n_predict": 2},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 2},
    "/tokenize": {"content": "abc"},
    "/detokenize": {"tokens": [100, 101]},
    "/apply-template": {"messages": MESSAGES},
}


@pytest.mark.parametrize("target", ROUTES)
async def test_the_engines_routes_are_relayed(old: Old, target: str) -> None:
    answer = await old.ask("POST", target, body=ROUTES[target])
    assert answer.status == 200, answer.body
    assert isinstance(answer.json(), dict)
    assert str(old.appliance.folder) not in answer.body.decode()


@pytest.mark.parametrize("target", ["/v1/embeddings", "/v1/rerank"])
async def test_what_the_model_cannot_do_is_said_by_the_engine_in_our_shape(old: Old, target: str) -> None:
    answer = await old.ask("POST", target, body={"input": "a", "query": "a", "documents": ["b"]})
    assert (answer.status, answer.error["code"]) == (501, "not_supported")


async def test_models_show_aliases_and_no_paths(old: Old) -> None:
    for target in ("/v1/models", "/v1/models/tiny"):
        answer = await old.ask("GET", target)
        assert answer.status == 200
        assert str(old.appliance.folder) not in answer.body.decode()
        assert "tiny" in answer.body.decode()


async def test_the_limits_of_the_old_variables_hold(old: Old) -> None:
    async def found(target: str, **options: Any) -> tuple[int, str]:
        answer = await old.ask("POST", target, **options)
        return answer.status, answer.error["code"]

    big = {"prompt": "a" * 21_000, "n_predict": 1}
    assert await found("/completion", body=big) == (413, "payload_too_large")
    many = {f"X-{number}": "a" for number in range(30)}
    assert await found("/completion", body={}, headers=many) == (431, "header_fields_too_large")
    assert await found("/completion", body={}, headers={"X": "a" * 1200}) == (431, "header_fields_too_large")
    assert await found("/completion?" + "q" * 700, body={}) == (414, "uri_too_long")
    assert await found("/completion", body=b"{") == (400, "bad_request")


async def test_a_keys_own_rate_overrides_the_default_and_429_says_when_to_come_back(old: Old) -> None:
    plenty = await old.ask("GET", "/v1/models", key=ALICE)
    assert plenty.headers["x-ratelimit-limit-requests"] == "500"
    answers = [await old.ask("GET", "/v1/models", key=BOB) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[2].error["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 120


async def test_metrics_want_a_key_where_the_old_variable_says_so(old: Old) -> None:
    answer = await old.ask("GET", "/metrics", key=None)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


def test_the_engine_cannot_be_reached_over_the_network(old: Old) -> None:
    """It listens on no port, and its key is made at every start for those who may enter the run directory."""
    appliance = old.appliance
    links = [link for link in Path(f"/proc/{appliance.pid('engine')}/fd").iterdir() if link.is_symlink()]
    held = {str(link.readlink()) for link in links}
    assert any(name.startswith("socket:") for name in held)
    for table in ("tcp", "tcp6"):
        lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        assert not [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held]
    assert (appliance.run_dir / "engine.key").stat().st_mode & 0o777 == 0o600
    assert appliance.run_dir.stat().st_mode & 0o777 == 0o700


def test_logs_lie_where_the_old_variables_say_and_hold_key_ids_and_no_keys(old: Old) -> None:
    for target in ("/nowhere\x1b[31m", f"/nowhere?k={ALICE}", "/v1/models"):
        asyncio.run(old.ask("GET", target, key=DAVE))
    logs = old.appliance.folder / "logs" / "chatty"
    assert (logs / "latest").resolve().name.startswith("oldname-")
    file = logs / "latest" / "gateway.log"
    old.appliance.wait_for(lambda: '"key":"dave"' in file.read_text(), 5, "the access line")
    line = next(json.loads(one) for one in file.read_text().splitlines() if '"key":"dave"' in one)
    assert (line["event"], line["route"], line["status"]) == ("request", "/v1/models", 200)
    for path in (file, old.appliance.folder / "stdout.txt", old.appliance.folder / "stderr.txt"):
        text = path.read_text()
        assert not [key for key in (ALICE, BOB, CAROL, DAVE) if key in text]
        assert "\x1b" not in text


async def test_misspelt_and_retired_variables_are_told_at_the_start(old: Old) -> None:
    words = old.appliance.stderr
    assert 'did you mean "NGL"?' in words
    assert "PORT_BACKEND: no longer has an effect" in words
    assert "not-used-any-more" not in words


async def test_sighup_reads_the_keys_again_and_a_broken_file_locks_nobody_out(old: Old) -> None:
    old.keys_file.write_text(OLD_KEYS + f"erin:{ERIN}\n")
    old.appliance.process.send_signal(signal.SIGHUP)
    await until(_opens(old, ERIN, 200))
    old.keys_file.write_text("erin:\x00broken\n")
    old.appliance.process.send_signal(signal.SIGHUP)
    await until(_keys_are(old, ok=False))
    assert (await old.ask("GET", "/v1/models", key=ERIN)).status == 200
    old.keys_file.write_text(OLD_KEYS)
    old.appliance.process.send_signal(signal.SIGHUP)
    await until(_opens(old, ERIN, 401))
    await until(_keys_are(old, ok=True))
    assert (await old.ask("GET", "/v1/models", key=ALICE)).status == 200


def _opens(old: Old, key: str, status: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await old.ask("GET", "/v1/models", key=key)).status == status

    return look


def _keys_are(old: Old, *, ok: bool) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await old.ask("GET", "/health", key=None)).json()["auth"]["keys_ok"] is ok

    return look


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(5):
        while not await happened():  # noqa: ASYNC110 - another process has no event for it
            await asyncio.sleep(0.02)


# --- cross-origin


async def test_an_allow_list_of_origins(old: Old) -> None:
    async def preflight(origin: str | None, target: str = "/v1/chat/completions") -> Answer:
        headers = {"Access-Control-Request-Method": "POST", **({"Origin": origin} if origin else {})}
        return await old.ask("OPTIONS", target, key=None, headers=headers)

    for target in ("/v1/chat/completions", "/nowhere", "*"):
        allowed = await preflight(ORIGIN, target)
        assert (allowed.status, allowed.body) == (204, b"")
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        assert "origin" in allowed.headers["vary"].lower()
    for origin in (None, "https://evil.example", f"{ORIGIN}.evil.example", "null", f"https://{'a' * 900}"):
        refused = await preflight(origin)
        assert refused.status == 204
        assert not [name for name in refused.headers if name.startswith("access-control-")]
        assert refused.headers["vary"] == "Origin"


async def test_answers_carry_our_cors_headers_and_not_the_engines(old: Old, tmp_path: Path) -> None:
    """The engine of these versions answers every origin; its headers must not pass beside the allow-list."""
    body = {"messages": MESSAGES, "max_tokens": 2}
    for streams in (False, True):
        for origin, expected in ((ORIGIN, ORIGIN), ("https://evil.example", None)):
            answer = await old.ask(
                "POST", "/v1/chat/completions", body={**body, "stream": streams}, headers={"Origin": origin}
            )
            assert answer.status == 200
            assert answer.headers.get("access-control-allow-origin") == expected
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers["vary"] == "Origin"
    async with gateway(tmp_path, {"gateway": {"cors": {"allow_origins": ["*"]}}}) as running:
        any_origin = await running.ask("GET", "/v1/models", headers={"Origin": "https://whoever.example"})
        assert any_origin.headers["access-control-allow-origin"] == "*"


async def test_an_origin_over_2048_characters_is_ignored_even_if_listed(tmp_path: Path) -> None:
    long = f"https://{'a' * 2050}"
    async with gateway(tmp_path, {"gateway": {"cors": {"allow_origins": [long, ORIGIN]}}}) as running:
        answer = await running.ask("OPTIONS", "/v1/models", headers={"Origin": long})
        assert answer.status == 204
        assert "access-control-allow-origin" not in answer.headers


async def test_without_origins_there_are_no_cors_headers(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        answer = await running.ask("OPTIONS", "/v1/models", headers={"Origin": ORIGIN})
        assert answer.status == 204
        assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


# --- keys and reload


async def test_reload_is_for_admins_and_counts_the_keys(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        new = "sk-new-key-000000000000000000000000"
        running.box.write_keys([*default_keys(), key_record("new", new)])
        assert (await running.ask("POST", "/reload")).status == 403
        assert (await running.ask("GET", "/v1/models", key=new)).status == 401
        answer = await running.ask("POST", "/reload", key=ADMIN_KEY)
        assert (answer.status, answer.json()) == (200, {"status": "ok", "keys_loaded": 3})
        assert (await running.ask("GET", "/v1/models", key=new)).status == 200
        assert (await running.ask("GET", "/reload", key=ADMIN_KEY)).status == 405


@pytest.mark.parametrize("damage", ["syntax", "half", "gone", "open to all"])
async def test_reload_is_all_or_nothing(tmp_path: Path, damage: str) -> None:
    async with gateway(tmp_path) as running:
        path = running.box.shot.locations.keys_file
        if damage == "gone":
            path.unlink()
        elif damage == "open to all":
            path.chmod(0o666)
        else:
            path.write_text(f"alice:{ALICE}\nnonsense\n" if damage == "syntax" else path.read_text()[:-40])
        answer = await running.ask("POST", "/reload", key=ADMIN_KEY)
        assert answer.status == 500
        assert answer.error["code"] == "keys_unusable"
        assert str(tmp_path) not in answer.body.decode()
        assert (await running.ask("GET", "/v1/models", key=KEY)).status == 200
        assert (await running.ask("GET", "/v1/models", key=ALICE)).status == 401
        assert (await running.ask("GET", "/health", key=None)).json()["auth"]["keys_ok"] is False


async def test_rate_windows_survive_a_reload(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"limits": {"requests_per_minute": 2}}) as running:
        for _ in range(2):
            assert (await running.ask("GET", "/v1/models")).status == 200
        assert (await running.ask("POST", "/reload", key=ADMIN_KEY)).status == 200
        refused = await running.ask("GET", "/v1/models")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize("content", [None, "", "{", f"alice:{ALICE}\nnonsense\n"])
def test_without_a_usable_key_nobody_gets_in(tmp_path: Path, content: str | None) -> None:
    box = make_box(tmp_path)
    if content is None:
        box.shot.locations.keys_file.unlink()
    else:
        box.shot.locations.keys_file.write_text(content)
    with stopping(box.start_gateway()):
        for key in (KEY, ALICE, "null", "0" * 64):
            answer = asyncio.run(ask(box.port, "GET", "/v1/models", key=key))
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")


def test_a_gateway_with_a_missing_module_does_not_start() -> None:
    for module in ("llama_gguf.gateway.api.auth", "llama_gguf.keys.keyring", "llama_gguf.keys.watcher"):
        code = f"import sys; sys.modules[{module!r}] = None; import llama_gguf.gateway.__main__ as m; m.main()"
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr


# --- errors and the relay


async def test_every_error_has_the_shape_of_openais_and_a_code_that_is_a_text(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        cases: list[tuple[str, str, dict[str, Any], int, str]] = [
            ("GET", "/nowhere", {}, 404, "not_found"),
            ("GET", "/v1/nowhere", {}, 404, "not_found"),
            ("GET", "/v1/models/other", {}, 404, "model_not_found"),
            ("DELETE", "/v1/models", {}, 405, "method_not_allowed"),
            ("GET", "/v1/chat/completions", {}, 405, "method_not_allowed"),
            ("GET", "/v1/models", {"key": None}, 401, "invalid_api_key"),
            ("POST", "/v1/chat/completions", {"body": b"["}, 400, "bad_request"),
            ("POST", "/v1/chat/completions", {"body": b""}, 400, "bad_request"),
            ("POST", "/v1/chat/completions", {"body": chat(status=500)}, 500, "bad_request"),
            ("POST", "/v1/chat/completions", {"body": chat(status=404)}, 404, "bad_request"),
            ("POST", "/v1/chat/completions", {"body": chat(garbage="x\r\n\r\n")}, 502, "engine_protocol"),
        ]
        for method, target, options, status, code in cases:
            answer = await running.ask(method, target, **options)
            assert answer.status == status, (target, answer.body)
            assert answer.error["code"] == code or status == 500
        assert (await running.ask("DELETE", "/v1/models")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_a_full_queue_is_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"limits": {"max_in_flight": 1, "queue": {"max_size": 1}}}) as running:
        busy = [asyncio.create_task(running.chat(hang_after=-1))]
        await running.until(lambda: running.gateway.backends.first.admission.active == 1)
        busy.append(asyncio.create_task(running.chat()))
        await running.until(lambda: running.gateway.backends.first.admission.waiting == 1)
        answer = await running.chat()
        assert (answer.status, answer.error["code"]) == (503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        queue = (await running.ask("GET", "/health")).json()["queue"]
        assert queue == {"max": 1, "active": 1, "waiting": 1}
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(request_bytes("POST", "/v1/chat/completions", body=chat(stream=True, tokens=5, hang_after=1)))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        async with asyncio.timeout(2):  # the engine will never send the second
            assert b"data: " in await reader.readuntil(b"\n\n")
        writer.close()


async def test_an_engine_that_fails_is_counted_as_it_was(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        assert (await running.chat(status=500, error="server_error")).status == 500
        await running.lines()
        text = running.gateway.metrics.render("text/plain", None)[0].decode()
        counted = [line for line in text.splitlines() if "requests_total{" in line and "chat/completions" in line]
        assert [line for line in counted if 'status="500"' in line and line.endswith(" 1.0")], counted
        assert not [line for line in counted if 'status="200"' in line and not line.endswith(" 0.0")]


async def test_a_configured_header_may_carry_the_key(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": {"extra_header": "X-Worker-Key"}}) as running:
        for value in (KEY, f"Bearer {KEY}"):
            assert (await running.ask("GET", "/v1/models", key=None, headers={"x-worker-key": value})).status == 200
        beside = await running.ask("GET", "/v1/models", key=KEY, headers={"x-worker-key": ERIN})
        assert beside.status == 200  # each header is tried
        wrong = await running.ask("GET", "/v1/models", key="sk-of-nobody-0000000000", headers={"x-worker-key": ERIN})
        assert (wrong.status, "Authorization and x-worker-key" in wrong.error["message"]) == (401, True)


async def test_metrics_speak_what_accept_asks_for(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        assert (await running.chat()).status == 200
        for accept, media, begin in (
            ("text/plain", "text/plain", b"# "),
            ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", b"# "),
            ("application/json", "application/json", b"{"),
            ("*/*", "text/plain", b"# "),
            ("", "text/plain", b"# "),
        ):
            answer = await running.ask("GET", "/metrics", key=None, headers={"Accept": accept} if accept else None)
            assert answer.status == 200
            assert answer.headers["content-type"].startswith(media), accept
            assert answer.body.startswith(begin)
            assert b"llama_gguf_requests" in answer.body
            assert b"llamacpp" in answer.body, "the engine's own series are merged"
            assert b"tester" not in answer.body, "ids of keys are shown where that was asked for"
            assert answer.body.endswith(b"# EOF\n") == ("openmetrics" in accept)
