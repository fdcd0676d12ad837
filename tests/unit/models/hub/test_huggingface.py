"""Models in hub repositories, against a server that speaks as much of the hub as a download needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.models.resolve import resolve
from support.file_server import COMMIT, FileServer, Remote, file_server
from support.model_box import Remembering, locations_for, settings_for
from support.tiny_model import write_tiny_model

REPO, FILE = "acme/tiny-GGUF", "tiny-Q4_K_M.gguf"


@pytest.fixture
def hub(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with file_server() as server:
        server.hub[REPO] = {FILE: Remote(tiny_model.read_bytes()), "README.md": Remote(b"# tiny")}
        use(server, monkeypatch)
        yield server


def use(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        server.address + "/{repo_id}/resolve/{revision}/{filename}",
    )


def fetch(root: Path, env: dict[str, str] | None = None, reporter: Remembering | None = None, **hf: Any) -> Path:
    wanted = {"repo": REPO, "file": FILE} | hf
    more = {"token_env": wanted.pop("token_env")} if "token_env" in wanted else {}
    model = settings_for(root, {"hf": wanted, **more}).model
    return resolve(model, locations_for(root), env or {}, reporter or Remembering()).model


def test_fetched_into_the_hubs_own_layout(hub: FileServer, tmp_path: Path) -> None:
    path = fetch(tmp_path)
    cache = tmp_path / "models" / "huggingface" / "models--acme--tiny-GGUF"
    assert path == cache / "snapshots" / COMMIT / FILE
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.resolve() == (cache / "blobs" / digest).resolve()
    assert (cache / "refs" / "main").read_text() == COMMIT
    from huggingface_hub import try_to_load_from_cache

    assert try_to_load_from_cache(REPO, FILE, cache_dir=tmp_path / "models" / "huggingface") == str(path)


def test_a_branch_is_asked_about_but_not_fetched_again(hub: FileServer, tmp_path: Path) -> None:
    fetch(tmp_path)
    reporter = Remembering()
    fetch(tmp_path, reporter=reporter)
    assert reporter.kinds() == ["resolving"]
    assert len(hub.asked("GET", f"/cdn/{REPO}/{FILE}")) == 1


def test_a_pinned_commit_on_disk_asks_nobody(hub: FileServer, tmp_path: Path) -> None:
    fetch(tmp_path, revision=COMMIT)
    assert not (tmp_path / "models" / "huggingface" / "models--acme--tiny-GGUF" / "refs").exists()
    hub.requests.clear()
    fetch(tmp_path, revision=COMMIT)
    assert hub.requests == []


def test_a_moved_branch_brings_the_new_file(hub: FileServer, tmp_path: Path) -> None:
    first = fetch(tmp_path)
    hub.commit = "b" * 40
    hub.hub[REPO][FILE] = Remote(write_tiny_model(tmp_path / "new.gguf", seed=9).read_bytes())
    second = fetch(tmp_path)
    assert (first.parent.name, second.parent.name) == (COMMIT, "b" * 40)
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("trouble", [500, 503, 401, 404, 429])
def test_a_hub_in_trouble_does_not_stop_a_model_on_disk(hub: FileServer, tmp_path: Path, trouble: int) -> None:
    there = fetch(tmp_path)
    hub.statuses = [trouble] * 50
    assert fetch(tmp_path) == there


def test_a_hub_that_is_down_does_not_stop_a_model_on_disk(
    hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = fetch(tmp_path)
    gone = FileServer(address="http://127.0.0.1:9")
    use(gone, monkeypatch)
    assert fetch(tmp_path) == there
    with pytest.raises(ModelError, match="the Hub cannot be reached") as caught:
        fetch(tmp_path / "empty")
    assert not caught.value.permanent


def test_offline(hub: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set") as caught:
        fetch(tmp_path, {"HF_HUB_OFFLINE": "1"})
    assert caught.value.permanent
    assert hub.requests == []
    there = fetch(tmp_path)
    hub.requests.clear()
    assert fetch(tmp_path, {"HF_HUB_OFFLINE": "1"}) == there
    assert hub.requests == []


def test_runpods_cached_models_are_used(
    hub: FileServer, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runpod = tmp_path / "runpod"
    monkeypatch.setattr("llama_gguf.models.source.RUNPOD_MODEL_CACHE", str(runpod))
    for age, commit in enumerate(("c" * 40, "d" * 40)):
        snapshot = runpod / "models--acme--tiny-GGUF" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / FILE).symlink_to(tiny_model)
        os.utime(snapshot, (1_700_000_000 - age, 1_700_000_000 - age))
    assert fetch(tmp_path, {"HF_HUB_OFFLINE": "1"}).parent.name == "c" * 40  # the newest, as no ref says which
    assert fetch(tmp_path, revision="d" * 40).parent.name == "d" * 40
    assert hub.requests == []
    with pytest.raises(ModelError):
        fetch(tmp_path, {"HF_HUB_OFFLINE": "1"}, revision="v2")


@pytest.mark.parametrize(
    ("env", "place"), [({"HF_HUB_CACHE": "{}/c"}, "c"), ({"HF_HOME": "{}/h"}, "h/hub")], ids=["cache", "home"]
)
def test_the_hubs_own_variables_say_where(hub: FileServer, tmp_path: Path, env: dict[str, str], place: str) -> None:
    path = fetch(tmp_path, {name: value.format(tmp_path) for name, value in env.items()})
    assert path.is_relative_to(tmp_path / place)


def test_interrupted_downloads_go_on(hub: FileServer, tmp_path: Path) -> None:
    body = hub.hub[REPO][FILE].body
    hub.cut_after = [200_000, 0]
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path)
    assert not caught.value.permanent
    assert "signature" not in caught.value.message
    path = fetch(tmp_path)
    assert path.read_bytes() == body
    assert hub.asked("GET", f"/cdn/{REPO}/{FILE}")[-1]["range"] == f"bytes=200000-{len(body) - 1}"


def test_bytes_that_are_not_what_the_hub_promised(hub: FileServer, tmp_path: Path) -> None:
    body = hub.hub[REPO][FILE].body
    hub.redirects[f"/cdn/{REPO}/{FILE}"] = hub.url("/other")
    hub.files["/other"] = Remote(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(ModelError, match="SHA-256"):
        fetch(tmp_path)


def test_token_goes_to_the_hub(hub: FileServer, tmp_path: Path) -> None:
    hub.hub_token = "hf_x"
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path)
    assert "HF_TOKEN" in caught.value.hint
    assert fetch(tmp_path, {"HF_TOKEN": "hf_x"}).is_file()
    with pytest.raises(ConfigError, match="MINE"):
        fetch(tmp_path / "b", {"HF_TOKEN": "hf_x"}, token_env="MINE")
    assert fetch(tmp_path / "b", {"MINE": "hf_x"}, token_env="MINE").is_file()


@pytest.mark.parametrize(
    ("hf", "message", "hint"),
    [
        ({"repo": "acme/none"}, "acme/none does not exist on the Hub", "check the name"),
        ({"revision": "v9"}, "has no v9", ""),
        ({"file": "tiny-Q4_K_S.gguf"}, "has no tiny-Q4_K_S.gguf", f"did you mean {FILE}?"),
        ({"file": "zzz"}, "has no zzz", f"it has {FILE}"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: FileServer, tmp_path: Path, hf: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        fetch(tmp_path, **hf)
    assert caught.value.permanent
    assert hint in caught.value.hint


def test_other_refusals(hub: FileServer, tmp_path: Path) -> None:
    hub.statuses = [403] * 5
    with pytest.raises(ModelError, match="denied access") as caught:
        fetch(tmp_path)
    assert caught.value.permanent
    hub.statuses = [418] * 5
    with pytest.raises(ModelError, match="responded with 418") as caught:
        fetch(tmp_path)
    assert caught.value.permanent  # what no hub says
    assert "HF_ENDPOINT" in caught.value.hint


def test_something_that_is_no_hub(hub: FileServer, tmp_path: Path) -> None:
    hub.commit = "main"
    with pytest.raises(ModelError, match="not a Hugging Face Hub"):
        fetch(tmp_path)


def test_split_models_come_from_one_commit(hub: FileServer, tmp_path: Path, tiny_model: Path) -> None:
    names = [f"q/tiny-0000{number}-of-00002.gguf" for number in (1, 2)]
    for name in names:
        hub.hub[REPO][name] = Remote(tiny_model.read_bytes())
    path = fetch(tmp_path, file=names[0])
    assert path.parent.parent.name == COMMIT
    assert path.with_name("tiny-00002-of-00002.gguf").is_file()
    asked = [path for method, path, _ in hub.requests if method == "HEAD"]
    assert asked == [f"/{REPO}/resolve/main/{names[0]}", f"/{REPO}/resolve/{COMMIT}/{names[1]}"]


def test_xet_where_it_is_asked_for(hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hf_xet talks to servers of its own, so only the hand-over to huggingface_hub is tried here."""
    body, calls = hub.hub[REPO][FILE].body, []

    def download(repo: str, name: str, *, cache_dir: Path, tqdm_class: Any, **options: Any) -> str:
        calls.append((repo, name, options["revision"], options["token"]))
        bar = tqdm_class(total=len(body))
        bar.update(len(body))
        bar.update_transfer(1)
        bar.set_transfer_postfix_str("fast")
        blob = cache_dir / "models--acme--tiny-GGUF" / "blobs" / hashlib.sha256(body).hexdigest()
        blob.write_bytes(body)
        return str(blob)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.file_download.parse_xet_file_data_from_response", lambda *_, **__: object())
    reporter = Remembering()
    path = fetch(tmp_path, {"HF_XET_HIGH_PERFORMANCE": "1"}, reporter)
    assert path.read_bytes() == body
    assert calls == [(REPO, FILE, "main", False)]
    assert reporter.steps[-1] == (len(body), len(body))
    assert hub.asked("GET", f"/cdn/{REPO}/{FILE}") == []
    assert fetch(tmp_path / "plain").read_bytes() == body
    assert len(calls) == 1


def test_the_lower_case_of_runpods_cache_is_found_and_told(
    hub: FileServer, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llama_gguf.models.source.RUNPOD_MODEL_CACHE", str(tmp_path / "runpod"))
    snapshot = tmp_path / "runpod" / "models--acme--tiny-gguf" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / FILE).symlink_to(tiny_model)
    with caplog.at_level("INFO"):
        assert fetch(tmp_path, revision=COMMIT) == snapshot / FILE
    assert not hub.requests
    (record,) = [one for one in caplog.records if "other case" in one.message]
    assert vars(record)["fields"] == {"repo": REPO, "path": str(snapshot / FILE)}
