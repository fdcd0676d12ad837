"""`llama-gguf models`: as its user, and as somebody whose files must not be removed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.cli.__main__ import run as run_cli
from llama_gguf.errors import ExitCode
from llama_gguf.models.source import AtUrl, plan_sources
from llama_gguf.settings.sections.model import Model
from support.file_server import COMMIT, Answer, FileServer, Remote, file_server
from support.model_box import locations_for
from support.tiny_model import write_tiny_model

REPO, FILE = "acme/tiny-GGUF", "tiny.gguf"
OLD = "b" * 40


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with file_server() as server:
        server.hub[REPO] = {FILE: Remote(tiny_model.read_bytes())}
        server.files["/m.gguf"] = Remote(tiny_model.read_bytes())
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


class Box:
    """A data directory and a configuration, and the commands on them."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.models = root / "models"
        self.models.mkdir()
        self._config = root / "config.yaml"
        self._root = root
        self._capsys = capsys
        self.err = ""

    def configure(self, **sections: Any) -> None:
        paths = {"data_dir": str(self._root), "run_dir": str(self._root / "run")}
        self._config.write_text(json.dumps({"paths": paths, **sections}))

    def run(self, *arguments: str, code: int = 0) -> str:
        assert run_cli(["models", *arguments, "--config", str(self._config)]) == code
        captured = self._capsys.readouterr()
        self.err = captured.err
        return captured.out

    def listed(self) -> dict[tuple[str, str], dict[str, Any]]:
        rows = json.loads(self.run("list", "--json"))["files"]
        return {(row["file"], row["state"]): row for row in rows}

    def files(self) -> set[str]:
        found = (path for path in self.models.rglob("*") if path.is_file() or path.is_symlink())
        names = {str(path.relative_to(self.models)) for path in found}
        return {name for name in names if not name.startswith(".") and not name.endswith(".lock")}


@pytest.fixture
def box(tmp_path: Path, hub: FileServer, capsys: pytest.CaptureFixture[str]) -> Box:
    made = Box(tmp_path, capsys)
    made.configure(models=two(hub))
    return made


def two(hub: FileServer) -> dict[str, Any]:
    return {"chat": {"hf": {"repo": REPO, "file": FILE}}, "other": {"url": hub.url("/m.gguf") + "?signature=geheim"}}


def repository(box: Box) -> Path:
    return box.models / "huggingface" / "models--acme--tiny-GGUF"


def add_old_version(box: Box, *, linked_to: Path | None = None, commit: str = OLD) -> Path:
    """An earlier commit of the same file: with a blob of its own, or with the same."""
    snapshot = repository(box) / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository(box) / "blobs").mkdir(exist_ok=True)
    blob = linked_to
    if blob is None:
        blob = write_tiny_model(repository(box) / "blobs" / "old.gguf", seed=3)
        blob = blob.rename(blob.with_name(hashlib.sha256(blob.read_bytes()).hexdigest()))
    (snapshot / FILE).symlink_to(os.path.relpath(blob, snapshot))
    return blob


# --- pull


def test_pull_fills_the_shelf_for_all_or_for_the_named_ones(box: Box, hub: FileServer) -> None:
    assert {state for _, state in box.listed()} == {"missing"}
    found = json.loads(box.run("pull", "chat", "--json"))
    assert list(found) == ["chat"]
    assert Path(found["chat"]["model"]).is_file()
    assert not hub.asked("GET", "/m.gguf")
    out = box.run("pull")
    assert out.splitlines() == [f"chat.model: {found['chat']['model']}", f"other.model: {out.split()[-1]}"]
    assert "geheim" not in out + box.err
    assert "downloading: " in box.err
    assert {state for _, state in box.listed()} == {"complete"}
    box.run("pull", "chatt", code=ExitCode.CONFIG)
    assert "hint: did you mean chat?" in box.err


def test_one_model_is_shown_as_by_model_download(box: Box, hub: FileServer) -> None:
    box.configure(model={"url": hub.url("/m.gguf")})
    out = box.run("pull")
    assert out.startswith("model: /")
    assert json.loads(box.run("pull", "m", "--json")) == {"model": out.split()[-1]}


def test_pull_looks_at_all_models_before_the_first_byte(box: Box, hub: FileServer) -> None:
    hub.answer = lambda _, path: Answer(404) if path == "/m.gguf" else None
    box.run("pull", code=ExitCode.CONFIG)
    assert "error: http://127.0.0.1" in box.err
    assert "not found (404)" in box.err
    assert box.files() == set()


def test_a_refused_model_has_its_place_in_the_message(box: Box, hub: FileServer) -> None:
    gated = Answer(401, {"X-Error-Code": "GatedRepo"})
    hub.answer = lambda method, path: gated if path.startswith("/acme") else None
    box.run("pull", "chat", code=ExitCode.CONFIG)
    assert f"error: models.chat.hf: {REPO} is gated, and no token is set\n" in box.err


# --- list


def test_list_shows_sizes_versions_and_who_uses_them(box: Box, hub: FileServer) -> None:
    box.run("pull")
    write_tiny_model(box.models / "mine.gguf")
    (box.models / "half.gguf.part").write_bytes(bytes(1 << 20))
    add_old_version(box)
    rows = json.loads(box.run("list", "--json"))["files"]
    size = len(hub.files["/m.gguf"].body)
    chat = next(row for row in rows if row["used_by"] == ["models.chat"])
    assert (chat["file"], chat["version"], chat["bytes"], chat["state"]) == (f"{REPO}/{FILE}", COMMIT, size, "complete")
    assert chat["current"]
    assert chat["last_used"].endswith("Z")
    old = next(row for row in rows if row["version"] == OLD)
    assert (old["current"], old["used_by"], old["last_used"]) == (False, [], None)
    by_file = {row["file"]: row for row in rows}
    assert by_file["mine.gguf"]["used_by"] == []
    assert (by_file["half.gguf"]["state"], by_file["half.gguf"]["bytes"]) == ("partial", 1 << 20)
    text = box.run("list")
    assert re.search(rf"{REPO}/{FILE} +{COMMIT[:12]} ", text)
    assert "models.chat" in text
    assert "`llama-gguf models prune` removes 2 of them" in box.err


def test_list_of_files_that_are_not_downloaded(box: Box, tiny_model: Path) -> None:
    box.configure(model={"path": str(tiny_model)})  # elsewhere, so not on the shelf
    assert box.listed() == {}
    assert f"No models in {box.models}" in box.run("list")
    box.configure(model={"path": "/nowhere/x.gguf"})
    assert list(box.listed()) == [("/nowhere/x.gguf", "missing")]


# --- prune


def test_prune_removes_what_is_unfinished_or_old_and_nothing_else(box: Box, hub: FileServer) -> None:
    box.run("pull")
    write_tiny_model(box.models / "mine.gguf")
    before = box.files()
    old_blob = add_old_version(box)
    for name in ("half.gguf.part", "half.gguf.part.json", "url/0123456789abcdef/x.gguf.part"):
        (box.models / name).parent.mkdir(parents=True, exist_ok=True)
        (box.models / name).write_bytes(b"{}")
    everything = box.files()
    out = box.run("prune", "--dry-run")
    assert f"{REPO}/{FILE}@{OLD[:12]}: " in out
    assert "3 files, " in out
    assert "nothing is removed" in out
    assert box.files() == everything
    assert "Removed 3 files" in box.run("prune", "--yes")
    assert box.files() == before
    assert not old_blob.exists()
    assert not (repository(box) / "snapshots" / OLD).exists()
    assert "Nothing to remove" in box.run("prune")
    hub.requests.clear()
    box.run("pull")
    assert not hub.asked("GET", "/m.gguf")


def test_prune_asks(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.run("pull")
    (box.models / "half.gguf.part").write_bytes(b"x")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    box.run("prune", code=130)
    assert (box.models / "half.gguf.part").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    box.run("prune")
    assert not (box.models / "half.gguf.part").exists()


def test_versions_that_share_their_bytes_with_one_in_use_stay(box: Box) -> None:
    box.run("pull")
    (blob,) = (path for path in (repository(box) / "blobs").iterdir() if path.suffix != ".lock")
    add_old_version(box, linked_to=blob)
    assert "Nothing to remove" in box.run("prune", "--yes")
    assert blob.is_file()


def test_the_bytes_go_with_the_last_version_that_has_them(box: Box) -> None:
    box.run("pull", "chat")
    blob = add_old_version(box)
    add_old_version(box, linked_to=blob, commit="d" * 40)
    found = json.loads(box.run("prune", "--yes", "--json"))
    assert [row["version"] for row in found["files"]] == [OLD, "d" * 40]
    assert not blob.exists()
    assert (repository(box) / "snapshots" / COMMIT / FILE).is_file()


def test_a_version_that_the_configuration_pins_stays(box: Box) -> None:
    box.run("pull", "chat")
    add_old_version(box)
    box.configure(models={"chat": {"hf": {"repo": REPO, "file": FILE, "revision": OLD}}})
    before = box.files()
    assert "Nothing to remove" in box.run("prune", "--yes")
    box.configure(models={"chat": {"hf": {"repo": REPO, "file": FILE}}})
    assert "Removed 1 files" in box.run("prune", "--yes")
    assert before - box.files() == {
        name for name in before if OLD in name or (name not in box.files() and "/blobs/" in name)
    }


def test_what_the_next_start_resumes_stays(box: Box, hub: FileServer) -> None:
    add_old_version(box)
    (repository(box) / "blobs" / ("c" * 64 + ".part")).write_bytes(b"x")
    destination = plan_sources(Model(url=hub.url("/m.gguf")), locations_for(box.models.parent), {}).model.origin
    assert isinstance(destination, AtUrl)
    destination.path.parent.mkdir(parents=True)
    destination.path.with_name("m.gguf.part").write_bytes(b"x")
    before = box.files()
    assert "Nothing to remove" in box.run("prune", "--yes")
    assert box.files() == before
    box.configure(model={"name": "any"})
    assert "Removed 2 files" in box.run("prune", "--yes")  # the only version of a file is not an old one


def test_a_download_in_progress_is_not_touched(box: Box) -> None:
    part = box.models / "half.gguf.part"
    part.write_bytes(b"x")
    with (box.models / "half.gguf.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = json.loads(box.run("prune", "--yes", "--json"))
        assert found["bytes_removed"] == 0
        assert [row["removed"] for row in found["files"]] == [False]
        assert "not removed, it is being downloaded" in box.err
        assert part.exists()
    box.run("prune", "--yes")
    assert not part.exists()


def test_other_programs_files_in_the_hubs_cache_stay(box: Box) -> None:
    box.run("pull")
    for repo in ("models--acme--tiny-GGUF", "models--google--bert", "datasets--x--y", "models--odd"):
        for number, commit in enumerate((OLD, "d" * 40)):
            snapshot = box.models / "huggingface" / repo / "snapshots" / commit
            snapshot.mkdir(parents=True)
            blob = box.models / "huggingface" / repo / "blobs" / (f"{number}" * 40)
            blob.parent.mkdir(exist_ok=True, parents=True)
            blob.write_bytes(b"weights")
            (snapshot / "model.safetensors").symlink_to(blob)
    before = box.files()
    assert "Nothing to remove" in box.run("prune", "--yes")
    assert box.files() == before


# --- remove


def test_remove_takes_the_models_own_downloads_only(box: Box, hub: FileServer) -> None:
    write_tiny_model(box.models / "mine.gguf")
    box.configure(models=two(hub) | {"mine": {"name": "mine"}, "same": {"url": hub.url("/m.gguf")}})
    box.run("pull")
    before = box.files()
    for name in ("mine", "other", "same"):  # not downloaded, used by both
        assert "Nothing to remove" in box.run("remove", name, "--yes")
        assert box.files() == before
    assert "Removed 1 files" in box.run("remove", "chat", "--yes")
    assert ("models.chat", "missing") in {(row["used_by"][0], row["state"]) for row in box.listed().values()}
    assert (box.models / "mine.gguf").exists()
    box.run("remove", "nope", "--yes", code=ExitCode.CONFIG)
    assert "has no such model" in box.err


def test_remove_of_a_file_that_a_model_uses_is_refused(box: Box) -> None:
    box.run("pull")
    box.run("remove", f"{REPO}/{FILE}", "--yes", code=ExitCode.CONFIG)
    assert "is used by models.chat" in box.err
    write_tiny_model(box.models / "mine.gguf")
    assert "Removed 1 files" in box.run("remove", "mine.gguf", "--yes")
    assert not (box.models / "mine.gguf").exists()


def test_names_that_would_move_the_cursor(box: Box) -> None:
    for name in (b"a\x1b[2Jb.gguf", b"\xff.gguf"):
        Path(os.fsdecode(os.fsencode(box.models) + b"/" + name)).write_bytes(b"GGUF")
    box.configure(model={"path": "/nowhere.gguf"})
    out = box.run("list") + box.run("remove", "a\x1b[2Jb.gguf", "--yes")
    assert "a?[2Jb.gguf" in out
    assert "\x1b[2J" not in out
    (listed,) = (file for file, state in box.listed() if state == "complete")
    assert os.fsencode(listed) == b"\xff.gguf"
    assert [path.suffix for path in box.models.iterdir() if path.is_file()] == [".gguf"]  # no lock file is left


# --- verify


def test_verify_says_what_is_damaged(box: Box, hub: FileServer) -> None:
    box.run("verify", code=ExitCode.CONFIG)
    box.run("pull")
    out = box.run("verify")
    assert "models.chat: " in out
    assert ": SHA-256 is right\n" in out
    assert "complete; no SHA-256 is known" in out
    chat = Path(next(row["path"] for row in box.listed().values() if row["used_by"] == ["models.chat"]))
    body = bytearray(chat.read_bytes())
    body[-1] ^= 1
    chat.resolve().write_bytes(body)
    assert "damaged: has the SHA-256" in box.run("verify", "chat", code=ExitCode.CONFIG)
    chat.resolve().write_bytes(body[:-100])
    rows = json.loads(box.run("verify", "--json", code=ExitCode.CONFIG))
    assert [row["ok"] for row in rows] == [False, True]
    assert rows[0]["result"].startswith("truncated: ")
    chat.resolve().write_bytes(b"<html>")
    assert "damaged: " in box.run("verify", code=ExitCode.CONFIG)


def test_verify_uses_the_digest_of_the_configuration(box: Box, hub: FileServer) -> None:
    box.run("pull")
    body = hub.files["/m.gguf"].body
    box.configure(models={"other": {"url": hub.url("/m.gguf"), "sha256": hashlib.sha256(body).hexdigest()}})
    assert ": SHA-256 is right\n" in box.run("verify")
    box.configure(models={"other": {"url": hub.url("/m.gguf"), "sha256": "0" * 64}})
    assert f"not {'0' * 64}" in box.run("verify", code=ExitCode.CONFIG)
