"""The image as people run it: hardened, with a mounted file or with variables alone, healthy, drained, restarted."""

from __future__ import annotations

import http.client as http_client
import json
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.file_server import Remote, file_server
from support.podman import LOCKED_DOWN, Answer, Container, container, eventually, http, podman

KEY = "sk-image-test-0123456789abcdefghijklmnopqrstuvwx"
CHAT = {"messages": [{"role": "user", "content": "A secret prompt."}], "max_tokens": 16}
OUR_USER, RANDOM_USER = "--user=10001:0", "--user=54321:0"

WriteConfig = Callable[[dict[str, Any] | str], str]


def first_key() -> list[str]:
    return ["--env=LLAMA_GGUF__AUTH__BOOTSTRAP__ENV=FIRST_KEY", f"--env=FIRST_KEY={KEY}"]


def chat(box: Container, key: str = KEY, port: int = 8000) -> Answer:
    return http(box.url("/v1/chat/completions", port), body=CHAT, key=key)


def free_port() -> int:
    """Return a port of this machine that nobody listens on, for a container in the machine's own network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_loud(line: str) -> bool:
    """Return whether a line of the logs is a warning or worse, JSON or not; a CUDA image may miss its GPU here."""
    if "no GPU is visible" in line:
        return False
    if line.startswith("{"):
        return json.loads(line).get("level") in {"warning", "error", "critical"}
    return re.search(r"\b(WARN(ING)?|ERROR|Traceback)\b", line) is not None


def tiny_settings(**more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": {"path": "/models/tiny.gguf", "aliases": ["tiny"]},
        "engine": {"context_per_slot": 512, "slots": 2},
        "auth": {"bootstrap": {"env": "FIRST_KEY"}},
        "gateway": {"drain_seconds": 20},
    }
    for section, values in more.items():
        settings[section] = {**settings.get(section, {}), **values}
    return settings


@pytest.fixture(scope="module")
def hardened(image: str, tiny_mount: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A mounted config, read-only root, no capability, a user the image does not know."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(json.dumps(tiny_settings(logging={"format": "json"})), encoding="utf-8")
    config.chmod(0o644)
    options = [*LOCKED_DOWN, RANDOM_USER, tiny_mount, f"--env=FIRST_KEY={KEY}", "--tmpfs=/data:mode=0770"]
    with container(image, options=[*options, f"--volume={config}:/etc/llama-gguf/config.yaml:ro"]) as box:
        box.wait_ready()
        yield box


def test_hardened_container_serves_a_chat(hardened: Container) -> None:
    answer = chat(hardened)
    assert answer.status == 200, answer.body
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert answer.json()["model"] == "tiny"
    assert chat(hardened, key="sk-wrong-0123456789abcdefghij").status == 401


def test_hardened_container_really_is(hardened: Container) -> None:
    assert hardened.exec("id", "-u").strip() == "54321"
    assert "Read-only" in hardened.exec("touch", "/opt/x", check=False)
    status = hardened.exec("cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


def test_process_one_is_ours_and_reaps_orphans(hardened: Container) -> None:
    assert "llama-gguf" in hardened.exec("cat", "/proc/1/cmdline").replace("\0", " ")
    # The inner sleep outlives its parent, is handed to process 1 and ends there: nothing may be left of it.
    hardened.exec("sh", "-c", "(sleep 0.3 &) ; exit 0")
    count = "cat /proc/[0-9]*/status | grep -c '^State:.*zombie' || true"
    eventually("no zombie", lambda: hardened.exec("sh", "-c", f"sleep 0.6; {count}").strip() == "0", 15)


def test_health_check_is_healthy(hardened: Container) -> None:
    assert hardened.healthcheck()
    assert hardened.exec("/opt/llama-gguf/bin/healthcheck").strip() == "200 ready"


def test_health_check_is_fast_enough_to_run_every_few_seconds(hardened: Container) -> None:
    code = "t=$(date +%s%N); /opt/llama-gguf/bin/healthcheck >/dev/null; echo $(( ($(date +%s%N) - t) / 1000000 ))"
    assert min(int(hardened.exec("sh", "-c", code)) for _ in range(3)) < 500


def test_health_check_notices_an_engine_that_hangs_and_its_recovery(hardened: Container) -> None:
    pid = hardened.pid_of("llama-server")
    hardened.exec("sh", "-c", f"kill -STOP {pid}")
    try:
        eventually("unhealthy", lambda: not hardened.healthcheck(), 30)
    finally:
        hardened.exec("sh", "-c", f"kill -CONT {pid}")
    eventually("healthy again", hardened.healthcheck, 30)
    assert chat(hardened).status == 200


def test_commands_work_inside(hardened: Container) -> None:
    assert "engine" in hardened.exec("llama-gguf", "status")
    assert "bootstrap" in hardened.exec("llama-gguf", "keys", "list")


def test_logs_hold_no_unexpected_warning_and_no_key(hardened: Container) -> None:
    logs = hardened.logs()
    # The test before stopped the engine on purpose; health says so, and nothing else may be loud.
    # llama-server calls it a warning that a repeated prompt is in its cache to the last token.
    expected = ("not answer", "unready", "silent", "need to evaluate at least 1 token", "n_past was set to")
    loud = [line for line in logs.splitlines() if is_loud(line)]
    assert [line for line in loud if not any(words in line for words in expected)] == []
    assert KEY not in logs
    assert "secret prompt" not in logs


def test_variables_alone_are_enough_and_every_port_can_be_moved(image: str, tiny_mount: str) -> None:
    options = [
        tiny_mount,
        *first_key(),
        "--env=LLAMA_GGUF__MODEL__PATH=/models/tiny.gguf",
        "--env=LLAMA_GGUF__ENGINE__CONTEXT_PER_SLOT=256",
        "--env=LLAMA_GGUF__GATEWAY__PORT=9000",
        "--env=LLAMA_GGUF__HEALTH__PORT=9001",
        "--env=LLAMA_GGUF__HEALTH__PATH=/alive",
    ]
    with container(image, options=options, ports=(9000, 9001)) as box:
        eventually("healthy", box.healthcheck, 60)
        assert http(box.url("/alive", 9001)).status == 200
        assert chat(box, port=9000).status == 200
        assert box.stop() == 0


def test_names_of_the_old_system_work(image: str, tiny_mount: str) -> None:
    options = [tiny_mount, *first_key(), "--env=MODEL_PATH=/models/tiny.gguf", "--env=CTX=512", "--env=PORT=9100"]
    with container(image, options=options, ports=(9100, 8001)) as box:
        box.wait_ready()
        assert chat(box, port=9100).status == 200


def test_health_check_is_unhealthy_while_the_model_is_not_there(image: str) -> None:
    options = ["--env=LLAMA_GGUF__MODEL__URL=http://127.0.0.1:9/never.gguf", *first_key()]
    with container(image, options=options) as box:
        eventually("a health server", lambda: http(box.url("/ping", 8001)).status == 204, 30)
        assert not box.healthcheck()
        assert box.exec("/opt/llama-gguf/bin/healthcheck", check=False).strip() == "204 starting"


def test_stop_lets_a_running_stream_end_and_exits_zero(image: str, slow_model: Path) -> None:
    slow_model.chmod(0o644)
    options = [
        f"--volume={slow_model}:/models/slow.gguf:ro",
        *first_key(),
        "--env=LLAMA_GGUF__MODEL__PATH=/models/slow.gguf",
        "--env=LLAMA_GGUF__GATEWAY__DRAIN_SECONDS=60",
    ]
    with container(image, options=options) as box:
        box.wait_ready(90)
        body = {**CHAT, "max_tokens": 60, "stream": True, "ignore_eos": True}
        request = urllib.request.Request(box.url("/v1/chat/completions"), data=json.dumps(body).encode())  # noqa: S310
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {KEY}")
        with urllib.request.urlopen(request, timeout=120) as stream:  # noqa: S310
            assert stream.readline().startswith(b"data: ")
            stopping = threading.Thread(target=box.stop, args=(90,))
            stopping.start()
            rest = stream.read()
        stopping.join()
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert box.exit_code() == 0


CRASHING_VARIANT = """
int ggml_backend_score(void) { return 1 << 20; }
void * ggml_backend_init(void) {
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#else
    __asm__ volatile(".inst 0x00000000"); /* udf #0 */
#endif
    return 0;
}
"""
ENGINE = "/opt/llama-gguf/engine/bin"


@pytest.fixture(scope="module")
def crashing_variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant of ggml's CPU code whose first instruction no CPU has."""
    folder = tmp_path_factory.mktemp("variant")
    source, library = folder / "crash.c", folder / "crash.so"
    source.write_text(CRASHING_VARIANT, encoding="ascii")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    library.chmod(0o755)
    return library


def cpu_variant(box: Container) -> dict[str, Any]:
    """Return what `llama-gguf status` says of the variant of the CPU code."""
    found: dict[str, Any] = json.loads(box.exec("llama-gguf", "status", "--json"))["cpu_variant"]
    return found


def test_a_cpu_variant_that_crashes_is_replaced_by_the_next_and_not_tried_again(
    image: str, tiny_mount: str, crashing_variant: Path
) -> None:
    options = [*LOCKED_DOWN, OUR_USER, tiny_mount, "--env=MODEL_PATH=/models/tiny.gguf", *first_key()]
    with container(image, options=[*options, "--tmpfs=/data:mode=0770"]) as box:
        box.wait_ready()
        before = cpu_variant(box)
        assert before["rejected"] == []
    best = before["name"]
    volume = podman("volume", "create").stdout.strip()
    options += [f"--volume={crashing_variant}:{ENGINE}/libggml-cpu-{best}.so:ro", f"--volume={volume}:/data"]
    said = "a lower variant is used from now on"
    try:
        with container(image, options=options) as box:
            box.wait_ready(90)
            healed = cpu_variant(box)
            assert healed["rejected"] == [best]
            assert healed["name"] not in (best, None)
            assert f"not used: {best}" in box.exec("llama-gguf", "status")
            assert chat(box).status == 200
            details = http(box.url("/health", 8001)).json()
            assert details["cpu_variant"] == healed
            assert box.logs().count(said) == 1
            assert box.stop() == 0
        with container(image, options=options) as box:
            box.wait_ready()
            assert cpu_variant(box) == healed
            assert said not in box.logs()
            assert box.stop() == 0
    finally:
        podman("volume", "rm", "--force", volume, check=False)


def test_a_pinned_cpu_variant_runs_and_one_that_crashes_is_not_replaced(
    image: str, tiny_mount: str, crashing_variant: Path
) -> None:
    options = [tiny_mount, "--env=MODEL_PATH=/models/tiny.gguf", *first_key()]
    with container(image, options=options) as box:
        box.wait_ready()
        lowest = "x64" if box.exec("uname", "-m").strip() == "x86_64" else "armv8.0_1"
    options.append(f"--env=LLAMA_GGUF__ENGINE__CPU_VARIANT={lowest}")
    with container(image, options=options) as box:
        box.wait_ready()
        assert cpu_variant(box) == {"name": lowest, "pinned": True, "rejected": []}
        maps = box.exec("cat", f"/proc/{box.pid_of('llama-server')}/maps")
        assert set(re.findall(r"libggml-cpu-([\w.]+)\.so", maps)) == {lowest}
    options.append(f"--volume={crashing_variant}:{ENGINE}/libggml-cpu-{lowest}.so:ro")
    with container(image, options=options) as box:
        assert box.wait_end(90) in {69, 78}
        assert "set engine.cpu_variant to auto" in box.logs()


def test_bad_configuration_exits_78_and_names_the_place(image: str, write_config: WriteConfig) -> None:
    mount = write_config("model:\n  path: /models/tiny.gguf\ngateway:\n  prot: 9000\n")
    done = podman("run", "--rm", mount, image, check=False)
    assert done.returncode == 78
    assert "/etc/llama-gguf/config.yaml:4:3: error[unknown-key]" in done.stderr
    assert 'did you mean "port"' in done.stderr


def test_a_model_that_cannot_load_ends_the_container_with_a_diagnosis(image: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    broken.chmod(0o644)
    options = [f"--volume={broken}:/models/broken.gguf:ro", "--env=MODEL_PATH=/models/broken.gguf", *first_key()]
    with container(image, options=options) as box:
        assert box.wait_end(90) in {69, 78}
        logs = box.logs()
        assert "broken.gguf" in logs
        assert "Traceback" not in logs


def test_keys_survive_a_restart_on_a_volume(image: str, tiny_mount: str) -> None:
    volume = podman("volume", "create").stdout.strip()
    options = [tiny_mount, f"--volume={volume}:/data", "--env=MODEL_PATH=/models/tiny.gguf", *first_key()]
    try:
        with container(image, options=options) as box:
            box.wait_ready()
            made = box.exec("llama-gguf", "keys", "generate", "--name", "second", "--quiet").strip().splitlines()[-1]
            eventually("the new key to be taken", lambda: chat(box, key=made).status == 200, 10)
            assert box.stop() == 0
        with container(image, options=options) as box:
            box.wait_ready()
            assert chat(box, key=made).status == 200
            mode = box.exec("stat", "-c", "%a %u", "/data/keys.json").split()
            assert mode == ["600", "10001"]
    finally:
        podman("volume", "rm", "--force", volume, check=False)


@pytest.mark.parametrize("user", [OUR_USER, RANDOM_USER])
@pytest.mark.parametrize(("place", "mount"), [("/data", []), ("/workspace", ["--volume=/workspace"])])
def test_data_lies_on_a_mounted_volume_if_there_is_one_and_any_user_may_write_it(
    image: str, tiny_mount: str, user: str, place: str, mount: list[str]
) -> None:
    """As on RunPod, whose volumes lie at /workspace or /runpod-volume: keys written to /data would be gone."""
    options = [user, tiny_mount, *mount, "--env=MODEL_PATH=/models/tiny.gguf", *first_key()]
    with container(image, options=options) as box:
        box.wait_ready()
        found = box.exec("sh", "-c", "ls -d /*/keys.json 2>/dev/null").split()
        assert found == [f"{place}/keys.json"]


def test_a_model_from_a_hub_is_fetched_with_a_read_only_root_by_any_user(image: str, tiny_model: Path) -> None:
    """Nothing that comes with a download may need HOME: caches, logs and bookkeeping of the hub's own library."""
    gateway, health = free_port(), free_port()
    with file_server() as site:
        site.hub["acme/tiny"] = {"tiny.gguf": Remote(tiny_model.read_bytes())}
        options = [
            *LOCKED_DOWN,
            RANDOM_USER,
            "--tmpfs=/data:mode=0770",
            "--network=host",
            f"--env=HF_ENDPOINT={site.address}",
            "--env=LLAMA_GGUF__MODEL__HF__REPO=acme/tiny",
            "--env=LLAMA_GGUF__MODEL__HF__FILE=tiny.gguf",
            "--env=LLAMA_GGUF__ENGINE__CONTEXT_PER_SLOT=256",
            f"--env=LLAMA_GGUF__GATEWAY__PORT={gateway}",
            f"--env=LLAMA_GGUF__HEALTH__PORT={health}",
            *first_key(),
        ]
        with container(image, options=options, ports=()) as box:
            eventually("readiness", lambda: http(f"http://127.0.0.1:{health}/ping").status == 200, 60)
            assert http(f"http://127.0.0.1:{gateway}/v1/chat/completions", body=CHAT, key=KEY).status == 200
            assert box.exec("find", "/data/models", "-name", "tiny.gguf", "-path", "*acme*").strip()
            # The library for large files speaks up as soon as it is loaded, if it has no place to write to.
            program = "import hf_xet, huggingface_hub.constants as c, os; print(os.access(c.HF_XET_CACHE, os.W_OK))"
            assert box.exec("/opt/llama-gguf/venv/bin/python", "-I", "-c", program).strip() == "True"
            assert [line for line in box.logs().splitlines() if is_loud(line)] == []


def test_data_that_cannot_be_written_is_told_and_not_worked_around(image: str, tiny_mount: str) -> None:
    """A read-only root and no volume: keys would be lost without a word."""
    options = [*LOCKED_DOWN, tiny_mount, "--env=MODEL_PATH=/models/tiny.gguf", *first_key()]
    with container(image, options=options) as box:
        assert box.wait_end(60) not in {0, 1}
        logs = box.logs()
        assert "/data" in logs
        assert "Traceback" not in logs


def test_second_signal_hurries(image: str, slow_model: Path) -> None:
    slow_model.chmod(0o644)
    options = [f"--volume={slow_model}:/models/slow.gguf:ro", "--env=MODEL_PATH=/models/slow.gguf", *first_key()]
    with container(image, options=options) as box:
        box.wait_ready(90)
        stream = threading.Thread(target=_swallow, args=(box,), daemon=True)
        stream.start()
        time.sleep(1.0)
        started = time.monotonic()
        podman("kill", "--signal=TERM", box.name)
        time.sleep(0.5)
        podman("kill", "--signal=TERM", box.name)
        box.wait_end(25)
        assert time.monotonic() - started < 25
        stream.join(10)


def _swallow(box: Container) -> None:
    """Read a long stream that is going to be cut."""
    body = {**CHAT, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    try:
        http(box.url("/v1/chat/completions"), body=body, key=KEY)
    except (OSError, http_client.HTTPException):
        return
