"""The engine program as supervisord starts it: a real process that fetches, execs and becomes the real llama-server."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.engine.diagnose import diagnose
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, Locations, locate
from support.file_server import Remote, file_server
from support.model_box import settings_for

pytestmark = pytest.mark.engine


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class Engine:
    """One engine program and what it leaves behind."""

    def __init__(self, root: Path, model: dict[str, object], **sections: Any) -> None:
        engine = {"context_per_slot": 512, "slots": 2} | sections.pop("engine", {})
        settings = settings_for(root, model, engine=engine, **sections)
        self.locations: Locations = locate(settings, {})
        run = self.locations.run
        run.root.mkdir(parents=True, exist_ok=True)
        run.engine_key.write_text("the-engines-key\n")
        snapshots.write(Snapshot(settings=settings, locations=self.locations), run.snapshot)
        self.log = root / "engine.log"
        self.process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def started(self, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program; whatever is left of it is killed at the end."""
        variables = os.environ | {RUN_DIR_VARIABLE: str(self.locations.run.root)} | env
        with (
            self.log.open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "llama_gguf.engine"], env=variables, stdout=log, stderr=subprocess.STDOUT
            ) as process,
        ):
            self.process = process
            try:
                yield process
            finally:
                process.kill()

    def ask(self, method: str, path: str, body: object = None, key: str = "the-engines-key") -> tuple[int, Any]:
        """Ask llama-server over its socket."""
        connection = _UnixConnection(self.locations.run.engine_socket)
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Whether llama-server says that it is ready."""
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def state(self) -> dict[str, Any]:
        """Return engine.json, empty while it is not there."""
        try:
            found: dict[str, Any] = json.loads(self.locations.run.engine_phase.read_text())
        except FileNotFoundError:
            return {}
        return found

    def wait(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `what` is true; fail with the log when it is not in time."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline or (self.process and self.process.poll() is not None and not what()):
                pytest.fail(f"not in time; engine.json: {self.state()}; log:\n{self.log.read_text()}")
            time.sleep(0.02)


def test_it_becomes_a_llama_server_that_answers(tmp_path: Path, tiny_model: Path) -> None:
    engine = Engine(tmp_path, {"path": str(tiny_model), "aliases": ["tiny", "also"]})
    with engine.started(LLAMA_ARG_CTX_SIZE="64", LLAMA_SERVER_SLOTS_DEBUG="1", HF_TOKEN="hf_secret") as process:
        engine.wait(engine.healthy)
        assert engine.state()["phase"] == "starting"
        assert engine.state()["pid"] == process.pid  # the process supervisord knows is llama-server itself
        status, answer = engine.ask(
            "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        )
        assert (status, answer["model"], answer["usage"]["completion_tokens"]) == (200, "tiny", 8)
        assert engine.ask("GET", "/slots", key="wrong")[0] == 401
        slots = engine.ask("GET", "/slots")[1]
        assert [slot["n_ctx"] for slot in slots] == [512, 512]
        assert "prompt" not in slots[0]
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"hf_secret" not in environment
        assert b"LLAMA_" not in environment
        process.terminate()
        assert process.wait(60) == 0
    assert "hi" not in engine.log.read_text().split()


def test_a_socket_left_by_a_kill_does_not_stop_the_next_start(tmp_path: Path, tiny_model: Path) -> None:
    engine = Engine(tmp_path, {"path": str(tiny_model)})
    for _ in range(2):
        with engine.started() as process:
            engine.wait(engine.healthy)
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
        assert engine.locations.run.engine_socket.exists()


def test_json_logs_are_json(tmp_path: Path, tiny_model: Path) -> None:
    engine = Engine(tmp_path, {"path": str(tiny_model)}, logging={"format": "json"})
    with engine.started() as process:
        engine.wait(engine.healthy)
        process.terminate()
        process.wait(60)
    lines = engine.log.read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == len(lines) > 3


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ({"path": "/nowhere/x.gguf"}, 78, "error: model.path: /nowhere/x.gguf does not exist"),
        ({"name": "none"}, 78, "error: model.name: there is no models directory"),
        ({"path": __file__}, 78, "is not a valid GGUF file"),
        ({"url": "http://127.0.0.1:9/x.gguf", "token_env": "NOT_SET"}, 78, "the variable NOT_SET is not set"),
    ],
)
def test_what_cannot_work_ends_with_78(tmp_path: Path, model: dict[str, object], code: int, message: str) -> None:
    engine = Engine(tmp_path, model)
    with engine.started() as process:
        assert process.wait(60) == code
    log = engine.log.read_text()
    assert message in log
    assert "Traceback" not in log
    diagnosis = diagnose(log.splitlines(), code, None)
    assert diagnosis.permanent
    assert diagnosis.cause in log


def test_without_a_run_directory(tmp_path: Path) -> None:
    for variables in ({RUN_DIR_VARIABLE: ""}, {RUN_DIR_VARIABLE: str(tmp_path)}):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llama_gguf.engine"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 78
        assert "hint: only `llama-gguf up` starts the programs" in done.stderr


@pytest.mark.parametrize("source", ["url", "hf"])
def test_a_stop_while_downloading_is_prompt_and_keeps_what_came(tmp_path: Path, tiny_model: Path, source: str) -> None:
    body = tiny_model.read_bytes()
    with file_server() as site:
        site.files["/t.gguf"] = Remote(body)
        site.hub["acme/tiny"] = {"t.gguf": Remote(body)}
        site.bytes_per_second = 20_000
        if source == "url":
            model: dict[str, object] = {"url": site.url("/t.gguf")}
        else:
            model = {"hf": {"repo": "acme/tiny", "file": "t.gguf"}}
        env = {"HF_ENDPOINT": site.address}
        engine = Engine(tmp_path, model)
        with engine.started(**env) as process:
            engine.wait(lambda: engine.state().get("phase") == "downloading")
            engine.wait(lambda: kept(tmp_path) > 0)
            assert engine.state()["bytes_total"] == len(body)
            process.terminate()
            assert process.wait(60) in (-signal.SIGTERM, 143, 0)
        there = kept(tmp_path)
        assert 0 < there < len(body)
        site.bytes_per_second = None
        with engine.started(**env) as process:
            engine.wait(engine.healthy)
            process.terminate()
            process.wait(60)
        ranges = [headers.get("range") for _, _, headers in site.requests]
        assert ranges[-1] == f"bytes={there}-{len(body) - 1}"
        assert list(tmp_path.rglob("*.part*")) == []


def kept(root: Path) -> int:
    """Return how many bytes the notes of an unfinished download promise."""
    for notes in root.rglob("*.part.json"):
        for start, end in json.loads(notes.read_text())["done"]:
            assert start == 0
            return int(end)
    return 0


def test_it_starts_while_the_hub_is_down(tmp_path: Path, tiny_model: Path) -> None:
    with file_server() as site:
        site.hub["acme/tiny"] = {"t.gguf": Remote(tiny_model.read_bytes())}
        engine = Engine(tmp_path, {"hf": {"repo": "acme/tiny", "file": "t.gguf"}})
        with engine.started(HF_ENDPOINT=site.address) as process:
            engine.wait(engine.healthy)
            process.kill()
    with engine.started(HF_ENDPOINT="http://127.0.0.1:9"):
        engine.wait(engine.healthy)
    assert "using the files on disk" in engine.log.read_text()


def test_diagnosis_of_a_real_failure(tmp_path: Path, tiny_model: Path) -> None:
    engine = Engine(tmp_path, {"path": str(tiny_model)}, engine={"extra_args": ["--cache-reuse", "many"]})
    with engine.started() as process:
        code = process.wait(60)
    found = diagnose(engine.log.read_text().splitlines(), code, None)
    assert found.cause == "llama-server rejects the value of --cache-reuse: stoi"
    assert found.permanent


TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "[{{ reasoning_effort }} {{ enable_thinking }}]{% if add_generation_prompt %}{% endif %}"
)
REPEATING = {
    "prompt": "abcdefghij" * 6,
    "n_predict": 60,
    "temperature": 0,
    "grammar": 'root ::= ("abcdefghij")+',  # what the model says of itself does not repeat
}


def test_settings_that_fit_a_model_to_its_use_reach_llama_server(tmp_path: Path, tiny_model: Path) -> None:
    """Each is seen in what llama-server says or does, not only in its arguments."""
    template = tmp_path / "t.jinja"
    template.write_text(TEMPLATE)
    engine = Engine(
        tmp_path,
        {"path": str(tiny_model), "chat_template": str(template)},
        logging={"level": "debug"},
        engine={
            "context_per_slot": 8192,  # trained: 2048
            "slots": 1,
            "load_mode": "dio",
            "numa": "distribute",
            "cpu_moe_layers": 1,
            "cache_reuse_tokens": 32,
            "rope": {"scaling": "yarn", "scale": 4.0, "freq_base": 20000.0, "yarn_original_context": 2048},
            "reasoning": {"mode": "off", "format": "none", "effort": "low", "budget_tokens": 5},
            "speculative": {"types": ["ngram-simple"], "max_tokens": 6, "ngram_size": 3, "ngram_min_hits": 1},
        },
    )
    with engine.started():
        engine.wait(engine.healthy)
        log = engine.log.read_text()
        assert "load_mode = dio" in log
        assert "n_ctx_train adjusted to 8192" in log
        assert "freq_base             = 20000.0" in log
        assert "size_n=3, size_m=6, min_hits=1" in log
        props = engine.ask("GET", "/props")[1]
        assert props["default_generation_settings"]["n_ctx"] == 8192
        assert props["default_generation_settings"]["params"]["reasoning_format"] == "none"
        asked = {"messages": [{"role": "user", "content": "Hi"}]}
        assert engine.ask("POST", "/apply-template", asked)[1]["prompt"].endswith("[low False]")
        assert engine.ask("POST", "/completion", REPEATING)[1]["timings"]["draft_n_accepted"] > 0
        # The second prompt lacks the middle of the first: its end comes from the cache too.
        head, middle, tail = ("".join(chr(65 + i * step % 58) for i in range(100)) for step in (1, 7, 11))
        texts = [head + middle + tail, head + tail + "?"]
        answers = [engine.ask("POST", "/completion", {"prompt": text, "n_predict": 1})[1] for text in texts]
        assert answers[1]["timings"]["cache_n"] > 190


def test_drafts_of_a_draft_model_are_as_long_as_set(tmp_path: Path, tiny_model: Path) -> None:
    model: dict[str, object] = {"path": str(tiny_model), "draft": {"path": str(shutil.copy(tiny_model, tmp_path))}}
    engine = Engine(tmp_path, model, engine={"speculative": {"max_tokens": 5}})
    with engine.started():
        engine.wait(engine.healthy)
        timings = engine.ask("POST", "/completion", {"prompt": "Hi", "n_predict": 60, "temperature": 0})[1]["timings"]
        # The same model drafts what it will say: five of six tokens come from drafts, three of four by default.
        assert timings["draft_n_accepted"] > 45


def test_the_longest_drafts_that_the_checks_allow_fit_into_the_batch(tmp_path: Path, tiny_model: Path) -> None:
    """One token more, and llama-server would abort as soon as every slot has such a draft."""
    speculative = {"types": ["ngram-mod"], "max_tokens": 31, "min_tokens": 1, "ngram_size": 3}
    chosen = {"slots": 4, "batch_size": 128, "ubatch_size": 64, "speculative": speculative, "context_per_slot": 2048}
    engine = Engine(tmp_path, {"path": str(tiny_model)}, engine=chosen)
    with engine.started(), ThreadPoolExecutor(4) as clients:
        engine.wait(engine.healthy)
        asked = REPEATING | {"n_predict": 400, "ignore_eos": True}
        answers = list(clients.map(lambda _: engine.ask("POST", "/completion", asked), range(12)))
        assert [status for status, _ in answers] == [200] * 12
        assert all(answer["timings"]["draft_n"] > 0 for _, answer in answers)


@pytest.mark.parametrize("types", [["ngram-map-k"], ["ngram-map-k4v"], ["ngram-mod"], ["ngram-cache"]])
def test_each_kind_of_draft_without_a_draft_model(tmp_path: Path, tiny_model: Path, types: list[str]) -> None:
    """The text stays what it is without drafts."""
    speculative = {"types": types, "max_tokens": 4, "min_tokens": 1, "ngram_size": 3}
    answers = []
    for number, chosen in enumerate(({}, {"speculative": speculative})):
        root = tmp_path / str(number)
        root.mkdir()
        engine = Engine(root, {"path": str(tiny_model)}, engine=chosen, logging={"level": "debug"})
        with engine.started():
            engine.wait(engine.healthy)
            answers.append(engine.ask("POST", "/completion", REPEATING)[1])
        assert (f"adding speculative implementation '{types[0]}'" in engine.log.read_text()) == bool(chosen)
    assert answers[0]["content"] == answers[1]["content"]
    assert "draft_n" not in answers[0]["timings"]
    assert answers[1]["timings"]["draft_n"] > 0
