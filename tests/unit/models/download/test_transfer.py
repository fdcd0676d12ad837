"""Several connections at once, against a real server that misbehaves in every way a store or CDN can."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.download.download import download
from llama_gguf.models.download.spec import Remote, Tuning
from support.file_server import Fate, FileServer, file_server
from support.file_server import Remote as Served
from support.model_box import Remembering

BODY = b"GGUF" + random.Random(3).randbytes(8_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = b"GGUF" + random.Random(4).randbytes(8_000_000)
PATH = "/m/model.gguf"
SEGMENT = 256 * 1024
TUNING = Tuning(retry_delay=0.02, busy_delay=0.02, read_timeout=1.0, save_interval=0.05, segment_bytes=SEGMENT)


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[PATH] = Served(BODY)
        yield server


def fetch(
    site: FileServer, folder: Path, sha256: str | None = None, connections: int = 8, tuning: Tuning = TUNING
) -> Remembering:
    reporter = Remembering()
    remote = Remote(site.url(PATH) + "?token=secret", "the model", sha256=sha256)
    download(remote, folder / "m.gguf", reporter, connections, tuning)
    assert [path.name for path in folder.iterdir()] == ["m.gguf"]
    return reporter


def got(folder: Path) -> bytes:
    return (folder / "m.gguf").read_bytes()


def bytes_asked(site: FileServer) -> int:
    """How many bytes were asked for in all."""
    ranges = [headers["range"].removeprefix("bytes=").split("-") for headers in site.asked("GET", PATH)]
    return sum(int(last) - int(first) + 1 for first, last in ranges)


class Peak:
    """Counts who is being answered at the same time, and makes each wait a little."""

    def __init__(self, limit: int = 99) -> None:
        self.limit = limit
        self.most = 0
        self.refused = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, target: str, headers: dict[str, str]) -> Fate | None:
        with self._lock:
            if self._now >= self.limit:
                self.refused += 1
                return Fate(status=429, retry_after=None)
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
        return None


def test_side_by_side(site: FileServer, tmp_path: Path) -> None:
    peak = site.fate = Peak()
    reporter = fetch(site, tmp_path, sha256=SHA256)
    assert got(tmp_path) == BODY
    assert peak.most == 8
    assert site.asked("GET", PATH)[0]["range"] == f"bytes=0-{SEGMENT - 1}"
    assert {headers.get("if-range") for headers in site.asked("GET", PATH)[1:]} == {'"v1"'}
    done = [step for step, _ in reporter.steps]
    assert done == sorted(done)
    assert reporter.steps[-1] == (len(BODY), len(BODY))


def test_a_wrong_digest_is_found(site: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SHA-256") as caught:
        fetch(site, tmp_path, sha256="0" * 64)
    assert caught.value.permanent
    assert list(tmp_path.iterdir()) == []


def test_as_many_connections_as_asked_for_and_worth_it(site: FileServer, tmp_path: Path) -> None:
    peak = site.fate = Peak()
    fetch(site, tmp_path, connections=3)
    assert peak.most == 3
    (tmp_path / "m.gguf").unlink()
    site.files[PATH] = Served(BODY[: 3 * SEGMENT])
    peak = site.fate = Peak()
    fetch(site, tmp_path)
    assert peak.most <= 3
    assert got(tmp_path) == BODY[: 3 * SEGMENT]


def test_connections_are_used_again(site: FileServer, tmp_path: Path) -> None:
    fetch(site, tmp_path, connections=2)
    assert len(site.requests) > 6
    assert site.connections <= 4


@pytest.mark.slow
def test_side_by_side_is_faster_where_each_connection_is_slow(site: FileServer, tmp_path: Path) -> None:
    site.bytes_per_second = 4e6
    took = {}
    for connections in (1, 8):
        began_at = time.monotonic()
        fetch(site, tmp_path, connections=connections)
        took[connections] = time.monotonic() - began_at
        (tmp_path / "m.gguf").unlink()
    assert took[1] >= 1.9
    assert took[8] < took[1] / 2  # of 1/8 at best: other tests keep the processors busy


def test_every_answer_breaks_off_and_still_it_comes(site: FileServer, tmp_path: Path) -> None:
    chance = random.Random(5)
    site.fate = lambda _, headers: Fate(cut_after=chance.randrange(1, SEGMENT))
    fetch(site, tmp_path, sha256=SHA256)
    assert got(tmp_path) == BODY


def test_a_break_loses_nothing_that_came(site: FileServer, tmp_path: Path) -> None:
    site.fate = lambda _, headers: Fate(cut_after=SEGMENT // 2)
    fetch(site, tmp_path, connections=2)
    assert got(tmp_path) == BODY
    starts = Counter(headers["range"].split("-")[0] for headers in site.asked("GET", PATH))
    assert starts.most_common(1)[0][1] <= 2  # (a segment that others steal from at the end can be requested again)


def test_one_that_says_nothing_does_not_hold_up_the_end(site: FileServer, tmp_path: Path) -> None:
    stalled: list[str] = []

    def fate(_: str, headers: dict[str, str]) -> Fate | None:
        if not stalled and headers["range"] != f"bytes=0-{SEGMENT - 1}":
            stalled.append(headers["range"])
            return Fate(cut_after=1000, stall=True)
        return None

    site.fate = fate
    began_at = time.monotonic()
    fetch(site, tmp_path, tuning=replace(TUNING, read_timeout=590.0))
    assert got(tmp_path) == BODY
    assert time.monotonic() - began_at < 580


def test_a_stall_of_everybody_ends_the_try(site: FileServer, tmp_path: Path) -> None:
    site.fate = lambda _, headers: Fate(cut_after=0, stall=True) if headers["range"] != "bytes=0-262143" else None
    with pytest.raises(ModelError, match="timed out waiting for data") as caught:
        fetch(site, tmp_path, connections=2, tuning=replace(TUNING, read_timeout=0.2))
    assert not caught.value.permanent
    sidecar = json.loads((tmp_path / "m.gguf.part.json").read_text())
    assert sum(end - start for start, end in sidecar["done"]) >= SEGMENT
    site.fate = None
    site.requests.clear()
    fetch(site, tmp_path)
    assert got(tmp_path) == BODY
    assert bytes_asked(site) <= len(BODY) - SEGMENT


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 3])
def test_a_server_with_few_places_is_used_as_far_as_it_goes(site: FileServer, tmp_path: Path, limit: int) -> None:
    peak = site.fate = Peak(limit)
    fetch(site, tmp_path, sha256=SHA256)
    assert got(tmp_path) == BODY
    assert peak.refused > 0
    assert peak.most == limit


@pytest.mark.slow
def test_retry_after_is_heeded(site: FileServer, tmp_path: Path) -> None:
    asked_at: list[float] = []

    def fate(_: str, headers: dict[str, str]) -> Fate | None:
        asked_at.append(time.monotonic())
        if len(asked_at) == 1:
            return Fate(bytes_per_second=SEGMENT / 1.5)
        return Fate(status=503, retry_after=1) if len(asked_at) <= 8 else None

    site.fate = fate
    fetch(site, tmp_path)
    assert got(tmp_path) == BODY
    assert asked_at[8] - asked_at[1] >= 1


def test_refusals_for_good_end_it(site: FileServer, tmp_path: Path) -> None:
    site.fate = lambda _, headers: Fate(status=404) if headers["range"] != "bytes=0-262143" else None
    with pytest.raises(ModelError, match=r"not found \(404\)") as caught:
        fetch(site, tmp_path)
    assert caught.value.permanent
    site.fate = lambda _, headers: Fate(status=503) if headers["range"] != "bytes=0-262143" else None
    with pytest.raises(ModelError, match="the server responded with 503") as caught:
        fetch(site, tmp_path)
    assert not caught.value.permanent


def test_a_file_that_changes_in_the_middle_is_fetched_anew(site: FileServer, tmp_path: Path) -> None:
    asked = 0

    def fate(_: str, headers: dict[str, str]) -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            site.files[PATH] = Served(OTHER, etag='"v2"')

    site.fate = fate
    fetch(site, tmp_path)
    assert got(tmp_path) == OTHER


def test_a_change_that_if_range_does_not_show(site: FileServer, tmp_path: Path) -> None:
    """Some servers ignore If-Range; what they answer still names the version."""
    site.heeds_if_range = False
    test_a_file_that_changes_in_the_middle_is_fetched_anew(site, tmp_path)


def test_servers_that_do_not_agree_about_the_version_are_asked_for_the_whole(site: FileServer, tmp_path: Path) -> None:
    """As behind a load balancer, where each machine makes an ETag of its own."""
    turn = 0

    def fate(_: str, headers: dict[str, str]) -> None:
        nonlocal turn
        turn += 1
        site.files[PATH].etag = f'"machine {turn % 3}"'

    site.fate = fate
    fetch(site, tmp_path, sha256=SHA256)
    assert got(tmp_path) == BODY
    # Not the last that was seen: a request for a range may come late from a connection that was given up.
    assert any("range" not in headers for headers in site.asked("GET", PATH))


def test_a_part_is_not_mixed_with_another_version(site: FileServer, tmp_path: Path) -> None:
    site.heeds_if_range = False
    (tmp_path / "m.gguf.part").write_bytes(BODY)
    sidecar = {"version": '"v0"', "size": len(BODY), "done": [[0, 100], [500_000, 7_000_000]]}
    (tmp_path / "m.gguf.part.json").write_text(json.dumps(sidecar))
    site.files[PATH] = Served(OTHER)
    fetch(site, tmp_path)
    assert got(tmp_path) == OTHER


def test_only_what_is_missing_is_asked_for(site: FileServer, tmp_path: Path) -> None:
    part = bytearray(len(BODY))
    done = [(0, 100), (500_000, 7_000_000), (7_500_000, 7_500_001)]
    for start, end in done:
        part[start:end] = BODY[start:end]
    (tmp_path / "m.gguf.part").write_bytes(part)
    sidecar = {"version": '"v1"', "size": len(BODY), "done": done}
    (tmp_path / "m.gguf.part.json").write_text(json.dumps(sidecar))
    reporter = fetch(site, tmp_path, sha256=SHA256)
    assert got(tmp_path) == BODY
    assert bytes_asked(site) == len(BODY) - sum(end - start for start, end in done)
    assert reporter.steps[0][0] >= 6_500_101


def test_a_signed_address_is_resolved_once_and_again_when_it_expires(site: FileServer, tmp_path: Path) -> None:
    site.hub["o/r"] = {"m.gguf": Served(BODY)}
    cdn = "/cdn/o/r/m.gguf"
    asked = 0

    def fate(_: str, headers: dict[str, str]) -> None:
        nonlocal asked
        asked += 1
        if asked in (4, 12):
            site.signature = f"new{asked}"

    site.fate = fate
    remote = Remote(site.url("/o/r/resolve/main/m.gguf"), "x", {"Authorization": "Bearer t"}, len(BODY), SHA256)
    download(remote, tmp_path / "m.gguf", Remembering(), 4, TUNING)
    assert got(tmp_path) == BODY
    resolved = site.asked("GET", "/o/r/resolve/main/m.gguf")
    assert 3 <= len(resolved) <= 9  # the first time, and each connection at most once for each expiry
    assert len(site.asked("GET", cdn)) > len(resolved) + 5
    assert {headers.get("authorization") for headers in resolved} == {"Bearer t"}
    assert {headers.get("authorization") for headers in site.asked("GET", cdn)} == {None}


def test_a_server_that_changes_its_mind_about_ranges(site: FileServer, tmp_path: Path) -> None:
    asked = 0

    def fate(_: str, headers: dict[str, str]) -> None:
        nonlocal asked
        asked += 1
        site.wrong_range = asked > 3

    site.fate = fate
    fetch(site, tmp_path)
    assert got(tmp_path) == BODY
    # Not the last that was seen: a request for a range may come late from a connection that was given up.
    assert any("range" not in headers for headers in site.asked("GET", PATH))


def test_a_disk_that_fills_up(site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwritev", write)
    with pytest.raises(ModelError, match="cannot be written: No space left") as caught:
        fetch(site, tmp_path)
    assert (caught.value.code, caught.value.permanent) == ("disk_full", True)


def test_the_digest_of_much_that_was_there_is_a_step_of_its_own(site: FileServer, tmp_path: Path) -> None:
    body = b"GGUF" + bytes(100_000_000)
    sha256 = hashlib.sha256(body).hexdigest()
    (tmp_path / "m.gguf.part").write_bytes(body)
    sidecar = {"version": '"v1"', "size": len(body), "done": [(0, len(body))]}
    (tmp_path / "m.gguf.part.json").write_text(json.dumps(sidecar))
    reporter = fetch(site, tmp_path, sha256=sha256)
    assert reporter.kinds() == ["downloading", "verifying"]
    assert reporter.steps[-1] == (len(body), len(body))
    assert site.requests == []
