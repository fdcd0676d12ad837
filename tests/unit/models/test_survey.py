"""All files of a model are looked at before the first byte: room for all together, and each of them exists."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.resolve import resolve
from support.file_server import COMMIT, Answer, FileServer, Remote, file_server
from support.model_box import Remembering, locations_for, settings_for
from support.tiny_model import write_tiny_model

REPO = "acme/tiny"


@pytest.fixture
def site(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    with file_server() as server:
        body = tiny_model.read_bytes()
        for name in ("m.gguf", "d.gguf", "s-00001-of-00003.gguf", "s-00002-of-00003.gguf", "s-00003-of-00003.gguf"):
            server.files[f"/{name}"] = Remote(body)
        other = write_tiny_model(tmp_path_factory.mktemp("other") / "d.gguf", seed=9).read_bytes()
        server.hub[REPO] = {"m.gguf": Remote(body), "d.gguf": Remote(other)}
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def models(site: FileServer) -> dict[str, dict[str, Any]]:
    """Ways to name files that are as large as two, or three, of the tiny model."""
    return {
        "urls": {"url": site.url("/m.gguf"), "draft": {"url": site.url("/d.gguf")}},
        "parts": {"url": site.url("/s-00001-of-00003.gguf")},
        "hub": {"hf": {"repo": REPO, "file": "m.gguf"}, "draft": {"hf": {"repo": REPO, "file": "d.gguf"}}},
        "both": {"hf": {"repo": REPO, "file": "m.gguf"}, "draft": {"url": site.url("/d.gguf")}},
    }


def fetch(root: Path, model: dict[str, Any]) -> Path:
    env = {"HOME": str(root)}
    return resolve(settings_for(root, model).model, locations_for(root), env, Remembering()).model


def downloaded(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.suffix in (".gguf", ".part") and not path.is_symlink())


@pytest.mark.parametrize("kind", ["urls", "parts", "hub", "both"])
def test_no_room_for_all_is_told_before_the_first_byte(
    site: FileServer, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(site.files["/m.gguf"].body)
    spare = 64 << 20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=spare + size * 3 // 2))
    with pytest.raises(ModelError, match="the download needs") as caught:
        fetch(tmp_path, models(site)[kind])
    assert (caught.value.code, caught.value.exit_code) == ("disk_full", ExitCode.CONFIG)
    assert downloaded(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=spare + size * 4))
    if kind != "parts":  # these are no true parts
        assert fetch(tmp_path, models(site)[kind]).is_file()


def test_what_is_there_needs_no_room(
    site: FileServer, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models(site)["urls"]
    first = fetch(tmp_path, {"url": model["url"]})
    size = first.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + size + 4096))
    before = len(site.requests)
    assert fetch(tmp_path, model).is_file()
    assert len(site.requests) - before == len(site.asked("GET", "/d.gguf"))  # one file needs no survey
    assert {headers["range"] for headers in site.asked("GET", "/d.gguf")} == {"bytes=0-16777215"}


@pytest.mark.parametrize("kind", ["urls", "hub", "both"])
def test_a_draft_that_does_not_exist_costs_no_download(site: FileServer, tmp_path: Path, kind: str) -> None:
    model = models(site)[kind]
    if "url" in model["draft"]:
        model["draft"]["url"] = site.url("/none.gguf")
    else:
        model["draft"]["hf"]["file"] = "none.gguf"
    with pytest.raises(ModelError, match=r"none\.gguf") as caught:
        fetch(tmp_path, model)
    assert (caught.value.code, caught.value.permanent) == ("model_not_found", True)
    assert downloaded(tmp_path) == []


@pytest.mark.parametrize("kind", ["urls", "hub"])
def test_a_local_draft_that_cannot_be_used_costs_no_download(site: FileServer, tmp_path: Path, kind: str) -> None:
    model = models(site)[kind] | {"draft": {"path": str(tmp_path / "draft.gguf")}}
    with pytest.raises(ModelError, match=r"^model\.draft\.path: .* does not exist"):
        fetch(tmp_path, model)
    (tmp_path / "draft.gguf").write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"draft\.gguf") as caught:
        fetch(tmp_path, model)
    assert caught.value.code == "model_not_gguf"
    assert site.requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), "model_not_gguf"),
        (Answer(503, {"Retry-After": "7"}), "model_server_error"),
        (Answer(302, {"Location": "/d.gguf"}), "model_unreachable"),
        (Answer(302, {"Location": "http://[bad"}), "model_unreachable"),
    ],
)
def test_a_draft_that_cannot_be_downloaded_costs_no_download(
    site: FileServer, tmp_path: Path, answer: Answer, code: str
) -> None:
    site.answer = lambda _, path: answer if path == "/d.gguf" else None
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path, models(site)["urls"])
    assert caught.value.code == code
    assert caught.value.retry_after_seconds == (7 if code == "model_server_error" else None)
    assert downloaded(tmp_path) == []


def test_models_beside_this_one_need_room_too(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(site.files["/m.gguf"].body)
    model, other = (settings_for(tmp_path, {"url": site.url(f"/{name}.gguf")}).model for name in "md")
    gone = settings_for(tmp_path, {"url": site.url("/none.gguf")}).model
    beside = {"models.other": other, "models.gone": gone}

    def fetch_beside() -> Path:
        return resolve(model, locations_for(tmp_path), {}, Remembering(), place="models.x", beside=beside).model

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + size * 3 // 2))
    with caplog.at_level("INFO"), pytest.raises(ModelError, match="the download needs"):
        fetch_beside()
    assert downloaded(tmp_path) == []
    (record,) = [one for one in caplog.records if "another model" in one.message]
    assert vars(record)["fields"]["model"] == "models.gone"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + size * 3))
    assert fetch_beside().is_file()  # what is wrong with another one is not this one's failure
    site.requests.clear()
    assert fetch_beside().is_file()
    assert site.requests == []  # nothing of its own is missing


def test_a_server_that_does_not_say_how_much_is_not_in_the_way(site: FileServer, tmp_path: Path) -> None:
    for name in ("/m.gguf", "/d.gguf"):
        site.files[name].length = False
        site.files[name].ranges = False
    assert fetch(tmp_path, models(site)["urls"]).is_file()
    assert "d.gguf" in downloaded(tmp_path)


def test_the_hub_is_asked_once_about_each_file(site: FileServer, tmp_path: Path) -> None:
    assert fetch(tmp_path, models(site)["hub"]).is_file()
    asked = [path for method, path, _ in site.requests if method == "HEAD"]
    assert asked == [f"/{REPO}/resolve/main/{name}.gguf" for name in "md"]
    assert (tmp_path / "models/huggingface/models--acme--tiny/snapshots" / COMMIT / "d.gguf").is_file()
