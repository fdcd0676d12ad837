"""A download at the start of the appliance, as a person sees it: progress on the console, and refusals at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode
from support.appliance import running
from support.file_server import Answer, Remote, file_server

pytestmark = pytest.mark.engine

REPO, FILE = "acme/tiny", "t.gguf"


def test_the_console_shows_how_far_a_download_is(tmp_path: Path, tiny_model: Path) -> None:
    body = tiny_model.read_bytes()
    with file_server() as site:
        site.files["/m.gguf"] = Remote(body)
        site.bytes_per_second = len(body) / 60
        overrides = {"model": {"url": site.url("/m.gguf") + "?signature=geheim", "download_connections": 1}}
        with running(tmp_path, model=None, overrides=overrides) as appliance:
            line = (
                r"\| engine \| (\d+)%, [\d.]+ MiB/s, (\d+) s left \| phase=downloading source=\S+/m\.gguf bytes_done="
            )
            appliance.wait_for(lambda: len(re.findall(line, appliance.stdout)) >= 2, 60, "two lines of progress")
            (first, first_left), (second, second_left) = re.findall(line, appliance.stdout)[:2]
            assert 0 < int(first) < int(second) < 100
            assert int(first_left) > int(second_left) > 0
            site.bytes_per_second = None
            assert "geheim" not in appliance.stdout + appliance.stderr
            appliance.stop()


def test_a_refusal_of_the_hub_ends_the_start_with_its_own_words(tmp_path: Path) -> None:
    gated = Answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Awaiting a review from the repo authors."})
    token = "hf_0123456789abcdefghij"
    with file_server() as site:
        site.answer = lambda _, path: None if path.startswith("/api/") else gated
        overrides = {"model": {"hf": {"repo": REPO, "file": FILE}}}
        env = {"HF_ENDPOINT": site.address, "HF_TOKEN": token}
        with running(tmp_path, model=None, overrides=overrides, env=env) as appliance:
            assert appliance.wait_exit(60) == ExitCode.CONFIG
            assert "the account of the token in HF_TOKEN has no access: Awaiting a review" in appliance.stderr
            assert token not in appliance.stdout + appliance.stderr
        assert len([path for _, path, _ in site.requests if not path.startswith("/api/")]) == 1
