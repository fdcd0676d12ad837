"""The log of the real llama-server after a request that tries to write into it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from support.appliance import Appliance, running

SECRET = "hunter2hunter2"
FORGED_TEXT = "2026-01-02T03:04:05.678Z | ERROR | gateway | forged"
FORGED_JSON = '{"ts":"2026-01-01T00:00:00Z","level":"error","program":"gateway","event":"forged"}'
GRAMMAR = f'root ::= "a" {SECRET} (\n{FORGED_TEXT}\nerror: forged\n{FORGED_JSON}\n\x1b[2J\x07\r{FORGED_TEXT}\n{SECRET}'


def ask_engine(appliance: Appliance, body: object) -> int:
    """POST to llama-server's own socket, past what the gateway would refuse."""
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(appliance.run_dir / "engine.sock"))
    key = (appliance.run_dir / "engine.key").read_text().strip()
    connection.request("POST", "/completion", json.dumps(body), {"Authorization": f"Bearer {key}"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("level", ["warning", "debug"])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_request_writes_nothing_of_its_own_into_the_log(
    log_format: str, level: str, tmp_path: Path, tiny_model: Path
) -> None:
    overrides = {"logging": {"format": log_format, "level": level}}
    with running(tmp_path, model=tiny_model, overrides=overrides) as appliance:
        appliance.wait_ready()
        log = appliance.run_dir / "engine.log"
        assert ask_engine(appliance, {"prompt": SECRET, "n_predict": 1}) == 200
        assert ask_engine(appliance, {"prompt": SECRET, "n_predict": 1, "grammar": GRAMMAR}) in (400, 500)
        appliance.wait_for(lambda: "error parsing grammar" in log.read_text(), 30, "the engine's words")
        assert appliance.stop() == 0
        everything = [appliance.stdout, *(path.read_text() for path in (appliance.run_dir / "logs").iterdir())]
        assert "error parsing grammar" in everything[0]
        for text in everything:
            assert SECRET not in text
            assert "forged" not in text
            assert not set("\x1b\x07\r") & set(text)
        if log_format == "json":
            assert {json.loads(line)["program"] for line in log.read_text().splitlines()} == {"engine"}
