"""One download after the other against a real server: resumed after any break, complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.download.download import download, prepare_directory
from llama_gguf.models.download.spec import Remote, Tuning
from support.file_server import FileServer, file_server
from support.file_server import Remote as Served
from support.model_box import Remembering
from support.silent import Silent

BODY = b"GGUF" + random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = "/m/model.gguf"
HASTY = Tuning(retry_delay=0.01)


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[PATH] = Served(BODY)
        yield server


def fetch(site: FileServer, target: Path, sha256: str | None = None, size: int | None = None) -> bytes:
    remote = Remote(site.url(PATH) + "?token=secret", "the model", sha256=sha256, size=size)
    download(remote, target, Silent(), tuning=HASTY)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    return target.read_bytes()


def noted(target: Path) -> object:
    return json.loads(target.with_name(target.name + ".part.json").read_text())["done"]


def ranges(site: FileServer) -> list[str | None]:
    return [headers.get("range") for headers in site.asked("GET", PATH)]


def test_whole_file_with_progress(site: FileServer, tmp_path: Path) -> None:
    reporter = Remembering()
    remote = Remote(site.url(PATH), "the model", size=len(BODY), sha256=SHA256)
    download(remote, tmp_path / "m.gguf", reporter)
    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]
    assert (tmp_path / "m.gguf").stat().st_mode & 0o777 == 0o644
    assert reporter.phases == [("downloading", "the model")]
    assert reporter.steps[0] == (0, len(BODY))
    assert reporter.steps[-1] == (len(BODY), len(BODY))


def test_breaks_are_resumed_within_one_call(site: FileServer, tmp_path: Path) -> None:
    site.cut_after = [1_000_000, 500_000, 700_000]
    assert fetch(site, tmp_path / "m.gguf") == BODY
    assert ranges(site) == ["bytes=0-", *(f"bytes={start}-3000003" for start in (1_000_000, 1_500_000, 2_200_000))]
    assert {headers.get("if-range") for headers in site.asked("GET", PATH)[1:]} == {'"v1"'}


def test_a_break_without_a_new_byte_ends_the_try(site: FileServer, tmp_path: Path) -> None:
    site.cut_after = [100_000, 0]
    with pytest.raises(
        ModelError, match="the model: the connection was closed before the response was complete"
    ) as caught:
        fetch(site, tmp_path / "m.gguf")
    assert not caught.value.permanent
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert not (tmp_path / "m.gguf").exists()
    assert noted(tmp_path / "m.gguf") == [[0, 100_000]]


def test_the_next_process_goes_on_where_the_last_ended(site: FileServer, tmp_path: Path) -> None:
    site.cut_after = [2_000_000, 0]
    with pytest.raises(ModelError):
        fetch(site, tmp_path / "m.gguf")
    assert fetch(site, tmp_path / "m.gguf", sha256=SHA256) == BODY
    assert ranges(site)[-1] == "bytes=2000000-3000003"


def test_a_changed_file_is_fetched_from_its_beginning(site: FileServer, tmp_path: Path) -> None:
    site.cut_after = [1_000_000, 0]
    with pytest.raises(ModelError):
        fetch(site, tmp_path / "m.gguf")
    other = b"GGUF" + random.Random(2).randbytes(1_500_000)
    site.files[PATH] = Served(other, etag='"v2"')
    assert fetch(site, tmp_path / "m.gguf") == other


def test_a_server_without_ranges_starts_again(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].ranges = False
    site.cut_after = [1_000_000, 2_000_000]
    assert fetch(site, tmp_path / "m.gguf") == BODY
    assert len(site.requests) == 3


def test_a_server_without_ranges_that_gets_no_further(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].ranges = False
    site.cut_after = [1_000_000, 1_000_000]
    with pytest.raises(ModelError, match="closed before the response was complete") as caught:
        fetch(site, tmp_path / "m.gguf")
    assert not caught.value.permanent


def test_without_etag_the_date_is_the_version(site: FileServer, tmp_path: Path) -> None:
    date = "Sun, 22 Nov 2026 20:00:00 GMT"
    site.files[PATH] = Served(BODY, etag=None, last_modified=date)
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf") == BODY
    assert site.asked("GET", PATH)[1]["if-range"] == date


def test_a_weak_etag_is_no_version(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].etag = 'W/"weak"'
    site.cut_after = [0, 1_000_000]
    assert fetch(site, tmp_path / "m.gguf") == BODY
    assert ranges(site) == ["bytes=0-", None, None]


def test_a_digest_is_enough_to_resume_by(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].etag = None
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", sha256=SHA256) == BODY
    assert ranges(site)[1] == "bytes=1000000-3000003"


OLD_NOTES = '{"validator": "\\"v1\\""}'


def leave(tmp_path: Path, part: bytes, sidecar: str = OLD_NOTES) -> Path:
    (tmp_path / "m.gguf.part").write_bytes(part)
    (tmp_path / "m.gguf.part.json").write_text(sidecar)
    return tmp_path / "m.gguf"


def test_a_part_of_the_former_format_is_taken_up(site: FileServer, tmp_path: Path) -> None:
    assert fetch(site, leave(tmp_path, BODY[:2_500_000])) == BODY
    assert ranges(site) == ["bytes=2500000-"]


def test_killed_between_the_last_byte_and_the_rename(site: FileServer, tmp_path: Path) -> None:
    assert fetch(site, leave(tmp_path, BODY)) == BODY
    assert ranges(site) == [f"bytes={len(BODY)}-"]
    sidecar = json.dumps({"version": '"v1"', "size": len(BODY), "done": [[0, len(BODY)]]})
    site.requests.clear()
    (tmp_path / "m.gguf").unlink()
    assert fetch(site, leave(tmp_path, BODY, sidecar), sha256=SHA256) == BODY
    assert site.requests == []


def test_a_part_longer_than_the_file_is_dropped(site: FileServer, tmp_path: Path) -> None:
    assert fetch(site, leave(tmp_path, BODY + b"more")) == BODY


@pytest.mark.parametrize(
    "sidecar", ["", "{", "[]", '{"validator": 1}', '{"version": "x", "size": 9, "done": [[0, 9]]}']
)
def test_notes_that_cannot_be_trusted_are_worth_nothing(site: FileServer, tmp_path: Path, sidecar: str) -> None:
    assert fetch(site, leave(tmp_path, b"GGUF" + bytes(len(BODY) - 4), sidecar)) == BODY


def test_damage_in_what_was_there_is_found_and_mended(site: FileServer, tmp_path: Path) -> None:
    damaged = BODY[:1_000_000] + bytes(1_000_000)
    assert fetch(site, leave(tmp_path, damaged), sha256=SHA256) == BODY
    assert ranges(site) == ["bytes=2000000-", "bytes=0-"]


def test_a_server_that_gets_ranges_wrong_is_asked_for_the_whole(site: FileServer, tmp_path: Path) -> None:
    site.cut_after = [1_000_000]
    site.wrong_range = True
    assert fetch(site, tmp_path / "m.gguf") == BODY
    assert ranges(site)[-1] is None


def test_unknown_length(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].length = False
    site.files[PATH].ranges = False
    assert fetch(site, tmp_path / "m.gguf") == BODY
    (tmp_path / "m.gguf").unlink()
    assert fetch(site, tmp_path / "m.gguf", sha256=SHA256) == BODY


def test_unknown_length_cut_short_is_noticed_by_the_announced_size(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].length = False
    site.files[PATH].ranges = False
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", size=len(BODY)) == BODY
    assert len(site.asked("GET", PATH)) == 2


def test_another_size_than_announced(site: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the file has 3000004 bytes, not 5 as expected"):
        fetch(site, tmp_path / "m.gguf", size=5)


def test_wrong_digest_leaves_nothing(site: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SHA-256") as caught:
        fetch(site, tmp_path / "m.gguf", sha256="0" * 64)
    assert caught.value.code == "checksum_mismatch"
    assert caught.value.exit_code == ExitCode.CONFIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"GG", b""], ids=["page", "stump", "empty"])
def test_a_page_instead_of_a_model(site: FileServer, tmp_path: Path, body: bytes) -> None:
    site.files[PATH] = Served(body, content_type="text/html")
    with pytest.raises(ModelError, match="not a GGUF file but text/html") as caught:
        fetch(site, tmp_path / "m.gguf")
    assert caught.value.permanent
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (401, "model_access_refused", True),
        (403, "model_access_refused", True),
        (404, "model_not_found", True),
        (410, "model_not_found", True),
        (400, "model_server_error", True),
        (429, "model_server_error", False),
        (500, "model_server_error", False),
        (503, "model_server_error", False),
    ],
)
def test_refusals(site: FileServer, tmp_path: Path, status: int, code: str, *, permanent: bool) -> None:
    site.statuses = [status]
    with pytest.raises(ModelError) as caught:
        fetch(site, tmp_path / "m.gguf")
    assert (caught.value.code, caught.value.permanent) == (code, permanent)
    assert "secret" not in caught.value.message


def test_a_full_disk_is_noticed_before_the_first_byte(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(ModelError, match="the download needs") as caught:
        fetch(site, tmp_path / "m.gguf")
    assert (caught.value.code, caught.value.permanent) == ("disk_full", True)


def test_a_directory_that_cannot_be_written(site: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError) as caught:
        prepare_directory(tmp_path / "file" / "below")
    assert caught.value.code == "models_dir_not_writable"
    (tmp_path / "m.gguf.part").mkdir()
    with pytest.raises(ModelError) as caught:
        fetch(site, tmp_path / "m.gguf")
    assert caught.value.code == "models_dir_not_writable"


def test_a_model_that_is_here_waits_for_no_http_client(tmp_path: Path, tiny_model: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from llama_gguf.models import http_url
from llama_gguf.models.hub import huggingface
from llama_gguf.models.resolve import resolve
from llama_gguf.models.source import plan_sources
from support.model_box import locations_for, settings_for
from support.silent import Silent
root = Path({str(tmp_path)!r})
locations, model = locations_for(root), settings_for(root, {{"url": "https://h/u.gguf"}}).model
target = plan_sources(model, locations, {{}}).model.origin.path
target.parent.mkdir(parents=True)
target.symlink_to({str(tiny_model)!r})
assert resolve(model, locations, {{}}, Silent()).model == target
print(sorted({{"aiohttp", "asyncio", "httpx2", "huggingface_hub", "ssl", "yarl"}} & set(sys.modules)))
"""
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # the tested code, not an installed one
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
