"""Downloads against a real server: resumed after any break, and complete or not there at all."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.download import Remote, download, http_client, prepare_directory
from llama_gguf.models.files import Silent
from support.file_server import FileServer, file_server
from support.file_server import Remote as Served
from support.model_box import Remembering

BODY = b"GGUF" + random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = "/m/model.gguf"


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        server.files[PATH] = Served(BODY)
        yield server


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with http_client() as made:
        yield made


def fetch(
    site: FileServer, target: Path, client: httpx2.Client, sha256: str | None = None, size: int | None = None
) -> str:
    remote = Remote(site.url(PATH) + "?token=secret", "the model", sha256=sha256, size=size)
    return download(remote, target, Silent(), client, sleep=lambda _: None)


def test_whole_file_with_progress(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    reporter = Remembering()
    remote = Remote(site.url(PATH), "the model", size=len(BODY), sha256=SHA256)
    assert download(remote, tmp_path / "m.gguf", reporter, client) == SHA256
    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]
    assert reporter.phases == [("downloading", "the model")]
    assert reporter.steps[0] == (0, len(BODY))
    assert reporter.steps[-1] == (len(BODY), len(BODY))


def test_breaks_are_resumed_within_one_call(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.cut_after = [1_000_000, 500_000, 700_000]
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256
    ranges = [headers.get("range") for headers in site.asked("GET", PATH)]
    assert ranges[0] is None
    assert ranges[1:] == ["bytes=1000000-", "bytes=1500000-", "bytes=2200000-"]
    assert {headers.get("if-range") for headers in site.asked("GET", PATH)[1:]} == {'"v1"'}


def test_a_break_without_a_new_byte_ends_the_try(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.cut_after = [100_000, 0]
    with pytest.raises(ModelError, match="the model") as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert not caught.value.permanent
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert not (tmp_path / "m.gguf").exists()
    assert (tmp_path / "m.gguf.part").stat().st_size == 100_000


def test_the_next_process_goes_on_where_the_last_ended(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.cut_after = [2_000_000, 0]
    with pytest.raises(ModelError):
        fetch(site, tmp_path / "m.gguf", client)
    assert fetch(site, tmp_path / "m.gguf", client, sha256=SHA256) == SHA256
    assert site.asked("GET", PATH)[-1]["range"] == "bytes=2000000-"
    assert (tmp_path / "m.gguf").read_bytes() == BODY


def test_a_changed_file_is_fetched_from_its_beginning(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.cut_after = [1_000_000, 0]
    with pytest.raises(ModelError):
        fetch(site, tmp_path / "m.gguf", client)
    other = b"GGUF" + random.Random(2).randbytes(1_500_000)
    site.files[PATH] = Served(other, etag='"v2"')
    assert fetch(site, tmp_path / "m.gguf", client) == hashlib.sha256(other).hexdigest()
    assert (tmp_path / "m.gguf").read_bytes() == other


def test_a_server_without_ranges_starts_again(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.files[PATH].ranges = False
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256


def test_without_etag_the_date_is_the_version(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    date = "Sun, 22 Nov 2026 20:00:00 GMT"
    site.files[PATH] = Served(BODY, etag=None, last_modified=date)
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256
    assert site.asked("GET", PATH)[1]["if-range"] == date


def test_a_weak_etag_is_no_version(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.files[PATH].etag = 'W/"weak"'
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256
    assert "range" not in site.asked("GET", PATH)[1]


def test_a_digest_is_enough_to_resume_by(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.files[PATH].etag = None
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", client, sha256=SHA256) == SHA256
    assert site.asked("GET", PATH)[1]["range"] == "bytes=1000000-"


def test_killed_between_the_last_byte_and_the_rename(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part").write_bytes(BODY)
    (tmp_path / "m.gguf.part.json").write_text('{"validator": "\\"v1\\""}')
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256
    assert (tmp_path / "m.gguf").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_dropped(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part").write_bytes(BODY + b"more")
    (tmp_path / "m.gguf.part.json").write_text('{"validator": "\\"v1\\""}')
    with pytest.raises(ModelError, match="has changed") as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert not caught.value.permanent
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256


def test_an_answer_with_another_range(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.cut_after = [1_000_000]
    site.wrong_range = True
    with pytest.raises(ModelError, match="another range") as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert not caught.value.permanent
    assert not (tmp_path / "m.gguf.part").exists()


def test_unknown_length(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.files[PATH].length = False
    assert fetch(site, tmp_path / "m.gguf", client) == SHA256


def test_unknown_length_cut_short_is_noticed_by_the_announced_size(
    site: FileServer, client: httpx2.Client, tmp_path: Path
) -> None:
    site.files[PATH].length = False
    site.cut_after = [1_000_000]
    assert fetch(site, tmp_path / "m.gguf", client, size=len(BODY)) == SHA256
    assert len(site.asked("GET", PATH)) == 2


def test_another_size_than_announced(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="3000004 bytes were offered where 5 were announced"):
        fetch(site, tmp_path / "m.gguf", client, size=5)


def test_wrong_digest_leaves_nothing(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SHA-256") as caught:
        fetch(site, tmp_path / "m.gguf", client, sha256="0" * 64)
    assert caught.value.code == "checksum_mismatch"
    assert caught.value.exit_code == ExitCode.CONFIG
    assert list(tmp_path.iterdir()) == []


def test_a_page_instead_of_a_model(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.files[PATH] = Served(b"<html>please log in</html>", content_type="text/html")
    with pytest.raises(ModelError, match="answers with text/html, not with a GGUF file") as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert caught.value.permanent
    assert not (tmp_path / "m.gguf").exists()


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
def test_refusals(
    site: FileServer, client: httpx2.Client, tmp_path: Path, status: int, code: str, *, permanent: bool
) -> None:
    site.statuses = [status]
    with pytest.raises(ModelError) as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert (caught.value.code, caught.value.permanent) == (code, permanent)
    assert "secret" not in caught.value.message


def test_nobody_there(client: httpx2.Client, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="refused") as caught:
        download(Remote("http://127.0.0.1:9/x?k=secret", "x"), tmp_path / "m.gguf", Silent(), client)
    assert (caught.value.code, caught.value.permanent) == ("model_unreachable", False)


def test_endless_redirects(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    site.redirects[PATH] = site.url(PATH)
    with pytest.raises(ModelError) as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert caught.value.permanent


def test_impossible_address(client: httpx2.Client, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no usable address") as caught:
        download(Remote("http://a:b:c/x", "x"), tmp_path / "m.gguf", Silent(), client)
    assert caught.value.code == "bad_url"


def test_credentials_do_not_follow_a_redirect_to_another_host(
    site: FileServer, client: httpx2.Client, tmp_path: Path
) -> None:
    with file_server() as elsewhere:
        elsewhere.files["/cdn"] = Served(BODY)
        site.redirects[PATH] = elsewhere.url("/cdn").replace("127.0.0.1", "localhost")
        remote = Remote(site.url(PATH), "x", headers={"Authorization": "Bearer secret"})
        download(remote, tmp_path / "m.gguf", Silent(), client)
        assert site.asked("GET", PATH)[0]["authorization"] == "Bearer secret"
        assert "authorization" not in elsewhere.asked("GET", "/cdn")[0]


def test_a_full_disk_is_noticed_before_the_first_byte(
    site: FileServer, client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(ModelError, match="are still to come") as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert (caught.value.code, caught.value.permanent) == ("disk_full", True)


def test_a_directory_that_cannot_be_written(site: FileServer, client: httpx2.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError) as caught:
        prepare_directory(tmp_path / "file" / "below")
    assert caught.value.code == "models_dir_not_writable"
    (tmp_path / "m.gguf.part").mkdir()
    with pytest.raises(ModelError) as caught:
        fetch(site, tmp_path / "m.gguf", client)
    assert caught.value.code == "models_dir_not_writable"
