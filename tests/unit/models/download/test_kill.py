"""kill -9 of a process that downloads, at any moment: the next one goes on, and the bytes are right."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.models.download.download import download
from llama_gguf.models.download.spec import Remote, Tuning
from support.file_server import FileServer, file_server
from support.file_server import Remote as Served
from support.silent import Silent

pytestmark = pytest.mark.slow

BODY = b"GGUF" + random.Random(6).randbytes(12_000_000)
PATH = "/m.gguf"


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[PATH] = Served(BODY)
        server.bytes_per_second = 2e6
        yield server


def _fetch(url: str, target: str) -> None:
    tuning = Tuning(save_interval=0.03, segment_bytes=128 * 1024)
    download(Remote(url, "x"), Path(target), Silent(), 6, tuning)


def test_killed_again_and_again(site: FileServer, tmp_path: Path) -> None:
    context, chance = multiprocessing.get_context("spawn"), random.Random()
    target, notes = tmp_path / "m.gguf", tmp_path / "m.gguf.part.json"
    kills = resumed = 0
    while not target.exists():
        assert kills < 40
        site.requests.clear()
        child = context.Process(target=_fetch, args=(site.url(PATH), str(target)))
        child.start()
        while child.is_alive() and not site.requests:
            time.sleep(0.005)
        resumed += bool(site.requests) and "if-range" in site.requests[0][2]
        child.join(chance.uniform(0, 0.35))
        if child.is_alive() and child.pid and kills < 12:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
        if notes.exists():
            assert _all_true(json.loads(notes.read_text()), target)
    assert target.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert kills >= 3
    assert resumed >= 1  # the others were killed before the first note


def _all_true(notes: dict[str, list[tuple[int, int]]], target: Path) -> bool:
    """Whether every byte that the notes promise is there."""
    part = target.with_name(target.name + ".part").read_bytes()
    return all(part[start:end] == BODY[start:end] for start, end in notes["done"])
