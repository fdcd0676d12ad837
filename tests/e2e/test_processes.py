"""The appliance as processes: start, crash, stop. Real supervisord, real llama-server, real gateway."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.appliance import KEY, Appliance, running
from support.patience import PATIENCE

pytestmark = pytest.mark.engine


@pytest.fixture
def slow_engine(engine_binary: Path, tmp_path: Path) -> Path:
    """The real llama-server, two seconds late, as if its model were big."""
    script = tmp_path / "slow-engine"
    script.write_text(f'#!/bin/sh\nsleep 2\nexec "{engine_binary}" "$@"\n')
    script.chmod(0o755)
    return script


def script(path: Path, text: str) -> dict[str, object]:
    """An engine that is a shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"engine": {"binary": str(path)}}


class Stream:
    """A streamed completion, read in a thread."""

    def __init__(self, appliance: Appliance, tokens: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", appliance.gateway_port, timeout=60)
        body = json.dumps({"prompt": "abc", "max_tokens": tokens, "stream": True, "ignore_eos": True})
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self.connection.request("POST", "/v1/completions", body, headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.data = self.answer.readline()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.data += self.answer.read()
        except (OSError, http.client.HTTPException):
            self.data += b"<cut>"
        finally:
            self.connection.close()

    def rest(self) -> bytes:
        """Everything that came, once it has ended."""
        self._thread.join(60)
        return self.data


LONG = {"engine": {"context_per_slot": 2048}}


def seconds_to_answers(appliance: Appliance) -> dict[str, float]:
    """Seconds from the start of `up` to the first answers of the health server and the gateway."""
    answered: dict[str, float] = {}
    while len(answered) < 2:
        for name, port in (("health", appliance.health_port), ("gateway", appliance.gateway_port)):
            try:
                if name not in answered and appliance.ask(port, "/ping", timeout=5).status in {200, 204}:
                    answered[name] = time.monotonic() - appliance.started_at
            except OSError:
                assert time.monotonic() - appliance.started_at < 20 * PATIENCE
        time.sleep(0.01)
    return answered


def test_answers_while_the_engine_loads(tmp_path: Path, tiny_model: Path, slow_engine: Path) -> None:
    """How soon is `make bench-start`'s to tell: here other work, and coverage, slow every program's start."""
    with running(tmp_path, model=tiny_model, overrides={"engine": {"binary": str(slow_engine)}}) as appliance:
        assert set(seconds_to_answers(appliance)) == {"gateway", "health"}
        assert appliance.ping() == 204


def test_starting_is_told_apart_until_ready(tmp_path: Path, tiny_model: Path, slow_engine: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides={"engine": {"binary": str(slow_engine)}}) as appliance:
        seconds_to_answers(appliance)
        assert appliance.ping() == 204
        assert appliance.ask(appliance.health_port, "/livez").status == 200
        assert appliance.ask(appliance.health_port, "/startupz").status == 503
        seen = set()
        while (status := appliance.ping()) != 200:
            seen.add(status)
            time.sleep(0.02)
        assert seen == {204}
        assert appliance.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status == 200
        assert appliance.stop() == 0
        assert appliance.leftovers() == []
        assert "WARNING" not in appliance.stdout
        assert "ERROR" not in appliance.stdout


def test_kill_9_of_each_program_while_serving(tmp_path: Path, tiny_model: Path) -> None:
    names = ("engine", "gateway", "health", "listener")
    with running(tmp_path, model=tiny_model) as appliance:
        appliance.wait_ready()
        time.sleep(1.2)  # until supervisord counts all as running
        for victim in ("engine", "gateway", "health"):
            before = {name: appliance.pid(name) for name in names}
            limit = 5.0 * PATIENCE
            os.kill(before[victim], signal.SIGKILL)
            began = time.monotonic()
            states = set()
            while appliance.ping() == 200 and time.monotonic() - began < limit:
                time.sleep(0.01)  # until it is noticed
            while (status := appliance.ping()) != 200:
                states.add(status)
                assert time.monotonic() - began < limit, f"{victim}: {states}"
                time.sleep(0.02)
            assert states <= {503, None}, f"{victim}: having been ready, it may not say {states}"
            assert appliance.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status == 200
            assert time.monotonic() - began < limit
            after = {name: appliance.pid(name) for name in names}
            assert {name for name in names if before[name] != after[name]} == {victim}
            time.sleep(1.2)
        before = {name: appliance.pid(name) for name in names}
        os.kill(before["listener"], signal.SIGKILL)
        appliance.wait_for(lambda: appliance.pid("listener") not in {0, before["listener"]}, 15, "the listener again")
        assert appliance.ping() == 200
        assert all(appliance.pid(name) == before[name] for name in names if name != "listener")

        def restarts() -> dict[str, int]:
            return {item["name"]: item["restarts"] for item in appliance.status()["programs"]}

        # The listener writes its own end down once it is back and has been told of it.
        appliance.wait_for(lambda: restarts() == dict.fromkeys(names, 1), 15, "one restart of each")
        found = appliance.status()
        assert "SIGKILL" in next(item["last_end"] for item in found["programs"] if item["name"] == "engine")
        assert appliance.stop() == 0
        assert appliance.leftovers() == []


@pytest.fixture
def used_run_dir() -> Iterator[Path]:
    """What a machine that lost power leaves: sockets nobody listens on, a key, marks of a drain and a failure."""
    run_dir = Path(tempfile.mkdtemp(prefix="lg")) / "run"
    run_dir.mkdir(mode=0o700)
    for name in ("engine.sock", "supervisord.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(run_dir / name))
    for name in ("engine.key", "draining", "failure.json", "ready", "supervisord.pid", "up.lock", "engine.json"):
        (run_dir / name).write_text("1\n")
    yield run_dir
    shutil.rmtree(run_dir.parent)


def test_starts_over_what_a_power_cut_left(tmp_path: Path, tiny_model: Path, used_run_dir: Path) -> None:
    with running(tmp_path, model=tiny_model, run_dir=used_run_dir) as appliance:
        appliance.wait_ready()
        assert appliance.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status == 200
        assert appliance.stop() == 0
        assert appliance.leftovers() == []


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"this is no model" * 100)
    with running(tmp_path / "box", model=bad) as appliance:
        assert appliance.wait_exit() in {69, 78}
        assert "bad.gguf" in appliance.stderr
        assert "cause:" in appliance.stderr
        failure = json.loads((appliance.run_dir / "failure.json").read_text())
        assert failure["program"] == "engine"
        assert failure["cause"]
        assert failure["fix"]
        assert appliance.leftovers() == []
        found = appliance.cli("status", "--run-dir", str(appliance.run_dir))
        assert found.returncode == 69
        assert failure["cause"] in found.stdout


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with running(tmp_path, model=tmp_path / "absent.gguf") as appliance:
        assert appliance.wait_exit() == 78
        assert "absent.gguf" in appliance.stderr
        assert appliance.leftovers() == []


def test_an_engine_that_dies_again_and_again_is_given_up(tmp_path: Path, tiny_model: Path) -> None:
    """It lives longer than a second each time, so supervisord alone would restart it, and be billed, for ever."""
    engine = script(tmp_path / "engine", "sleep 1.3\necho 'CUDA error: out of memory' >&2\nexit 1")
    with running(tmp_path / "box", model=tiny_model, overrides=engine) as appliance:
        assert appliance.wait_exit() in {69, 78}
        assert "llama-gguf: engine " in appliance.stderr
        assert "out of memory" in appliance.stderr
        assert appliance.leftovers() == []


def test_a_running_stream_is_finished_before_the_stop(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides=LONG) as appliance:
        appliance.wait_ready()
        stream = Stream(appliance, 1800)
        appliance.pid("supervisord")
        appliance.process.send_signal(signal.SIGTERM)
        appliance.wait_for(lambda: appliance.ping() == 503, 5, "unready while draining")
        data = stream.rest()
        assert data.rstrip().endswith(b"data: [DONE]")
        assert appliance.wait_exit() == 0
        assert appliance.leftovers() == []
        assert "terminated by" not in appliance.stdout


def test_a_second_signal_does_not_wait_for_the_stream(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model, overrides={**LONG, "gateway": {"drain_seconds": 60}}) as appliance:
        appliance.wait_ready()
        os.kill(appliance.pid("engine"), signal.SIGSTOP)  # a stream that never ends
        thread = threading.Thread(target=self_ending_request, args=(appliance,))
        thread.start()
        time.sleep(0.3)
        appliance.pid("supervisord")
        appliance.process.send_signal(signal.SIGTERM)
        appliance.wait_for(lambda: "gateway is draining" in appliance.stdout, 5, "the drain")
        time.sleep(0.3)
        assert appliance.process.poll() is None
        began = time.monotonic()
        assert appliance.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 50  # and not the 60 s of the drain
        assert appliance.leftovers() == []
        thread.join(10)


def self_ending_request(appliance: Appliance) -> None:
    """A request that is cut off."""
    try:
        appliance.post("/v1/completions", {"prompt": "a", "max_tokens": 5}, timeout=30)
    except (OSError, http.client.HTTPException):
        return


def test_ctrl_c_stops_clean(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model) as appliance:
        appliance.wait_ready()
        assert appliance.stop(signal.SIGINT) == 0
        assert appliance.leftovers() == []


def test_kill_9_of_up_leaves_nothing_running(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, model=tiny_model) as appliance:
        appliance.wait_ready()
        assert appliance.pid("supervisord")
        appliance.process.kill()
        appliance.process.wait(60)
        deadline = time.monotonic() + 20
        while any("python" in left or "llama-server" in left for left in appliance.leftovers()):
            assert time.monotonic() < deadline, appliance.leftovers()
            time.sleep(0.1)
        key = appliance.run_dir / "engine.key"
        old = key.readlink() if key.is_symlink() else None
        with running(tmp_path / "again", model=tiny_model, run_dir=appliance.run_dir) as again:
            again.wait_ready()
            assert again.stop() == 0
            assert old is None or not old.exists()
