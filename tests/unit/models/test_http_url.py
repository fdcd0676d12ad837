"""Models at addresses, through `resolve`, against a real server."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError, ExitCode, ModelError
from llama_gguf.models.resolve import resolve, resolve_with_retries
from llama_gguf.settings.sections.model import Model
from support.file_server import Answer, FileServer, Remote, file_server
from support.model_box import Remembering, locations_for, settings_for
from support.tiny_model import write_tiny_model

PATH = "/models/tiny.gguf"


@pytest.fixture
def site(tiny_model: Path) -> Iterator[FileServer]:
    with file_server() as server:
        server.files[PATH] = Remote(tiny_model.read_bytes())
        yield server


def model_at(url: str, **more: object) -> Model:
    return settings_for(Path("/x"), {"url": url, **more}).model


def test_fetched_once(site: FileServer, tmp_path: Path) -> None:
    locations, reporter = locations_for(tmp_path), Remembering()
    model = model_at(site.url(PATH) + "?signature=1")
    found = resolve(model, locations, {}, reporter).model
    assert found.parent.parent == locations.models_dir / "url"
    assert found.name == "tiny.gguf"
    assert reporter.kinds() == ["resolving", "downloading"]
    # Another signature is the same file, and a file that is here is not asked for.
    assert resolve(model_at(site.url(PATH) + "?signature=2"), locations, {}, Remembering()).model == found
    assert len(site.requests) == 1


def test_token(site: FileServer, tmp_path: Path) -> None:
    site.files[PATH].token = "t0ken"
    model = model_at(site.url(PATH), token_env="MY_TOKEN")
    with pytest.raises(ConfigError, match="the variable MY_TOKEN is not set"):
        resolve(model, locations_for(tmp_path), {}, Remembering())
    with pytest.raises(ModelError, match="access denied"):
        resolve(model, locations_for(tmp_path), {"MY_TOKEN": "wrong"}, Remembering())
    assert resolve(model, locations_for(tmp_path), {"MY_TOKEN": " t0ken\n"}, Remembering()).model.is_file()


def test_digest_is_checked_while_fetching_and_not_again(site: FileServer, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(site.files[PATH].body).hexdigest()
    for expected in (["resolving", "downloading"], ["resolving"]):
        reporter = Remembering()
        resolve(model_at(site.url(PATH), sha256=sha256), locations_for(tmp_path), {}, reporter)
        assert reporter.kinds() == expected


def test_a_file_with_another_digest_is_fetched_anew(site: FileServer, tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    found = resolve(model_at(site.url(PATH)), locations, {}, Remembering()).model
    other = write_tiny_model(tmp_path / "other.gguf", seed=8).read_bytes()
    site.files[PATH] = Remote(other, etag='"v2"')
    sha256 = hashlib.sha256(other).hexdigest()
    assert resolve(model_at(site.url(PATH), sha256=sha256), locations, {}, Remembering()).model == found
    assert found.read_bytes() == other


def test_a_file_put_there_by_hand_is_checked_and_kept(site: FileServer, tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    found = resolve(model_at(site.url(PATH)), locations, {}, Remembering()).model
    reporter = Remembering()
    sha256 = hashlib.sha256(site.files[PATH].body).hexdigest()
    resolve(model_at(site.url(PATH), sha256=sha256), locations, {}, reporter)
    assert reporter.kinds() == ["resolving", "verifying"]
    assert len(site.requests) == 1
    assert found.is_file()


def test_split_models_come_whole(site: FileServer, tmp_path: Path, tiny_model: Path) -> None:
    for number in (1, 2):
        site.files[f"/m/tiny-0000{number}-of-00002.gguf"] = Remote(tiny_model.read_bytes())
    model = model_at(site.url("/m/tiny-00001-of-00002.gguf?signature=1"))
    found = resolve(model, locations_for(tmp_path), {}, Remembering()).model
    assert found.name == "tiny-00001-of-00002.gguf"
    assert found.with_name("tiny-00002-of-00002.gguf").is_file()


def _resolve_in_child(url: str, root: str, results: multiprocessing.Queue[tuple[int, list[str]]]) -> None:
    reporter = Remembering()
    path = resolve(model_at(url), locations_for(Path(root)), {}, reporter).model
    results.put((os.getpid(), [path.name, *(detail for _, detail in reporter.phases)]))


@pytest.mark.slow
def test_two_workers_on_one_volume_fetch_it_once(site: FileServer, tmp_path: Path) -> None:
    site.hold = threading.Event()
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, list[str]]] = context.Queue()
    arguments = (site.url(PATH), str(tmp_path), results)
    workers = [context.Process(target=_resolve_in_child, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 60
    while not site.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    site.hold.set()
    answers = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(site.requests) == 1
    assert sum("waiting for another worker" in detail for _, details in answers for detail in details) == 1


# --- refusals


@pytest.mark.parametrize(
    ("answer", "message", "hint", "exit_code", "attempts"),
    [
        (Answer(401, {}, b"no"), "access denied (401)", "the token in T is invalid", ExitCode.CONFIG, 1),
        (
            Answer(403, {"Content-Type": "application/xml"}, b"<Error><Message>Request has expired</Message></Error>"),
            "access denied (403): Request has expired",
            "the token in T",
            ExitCode.CONFIG,
            1,
        ),
        (
            Answer(404, {"Content-Type": "application/json"}, b'{"error": "Entry not found\\u001b[0m"}'),
            "not found (404): Entry not found?[0m",
            "check the URL",
            ExitCode.CONFIG,
            1,
        ),
        (Answer(451), "the server responded with 451", "", ExitCode.CONFIG, 1),
        (
            Answer(503, {"Content-Type": "text/plain", "Retry-After": "100"}, b"token t0ken is over its quota"),
            "the server responded with 503: token *** is over its quota",
            "",
            ExitCode.UNAVAILABLE,
            8,
        ),
        (
            Answer(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Sign in</title>"),
            "the response is not a GGUF file but text/html",
            "check that the URL is that of the file itself",
            ExitCode.CONFIG,
            1,
        ),
        (Answer(302, {"Location": PATH}), "more than 10 redirects", "", ExitCode.CONFIG, 11),
    ],
    ids=["401", "403", "404", "451", "503", "a web page", "a circle"],
)
def test_refusals(
    site: FileServer, tmp_path: Path, *, answer: Answer, message: str, hint: str, exit_code: ExitCode, attempts: int
) -> None:
    pauses: list[float] = []
    site.answer = lambda *_: answer
    model = model_at(site.url(PATH) + "?signature=geheim", token_env="T")
    with pytest.raises(ModelError) as caught:
        resolve_with_retries(model, locations_for(tmp_path), {"T": "t0ken"}, Remembering(), sleep=pauses.append)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == exit_code
    assert len(site.requests) == attempts
    assert not {"t0ken", "geheim"} & set(caught.value.message.split())
    assert all(100 <= pause <= 102 for pause in pauses)
    assert not list(tmp_path.rglob("*.part"))


def test_a_digest_that_the_hub_contradicts_is_told_before_the_first_byte(site: FileServer, tmp_path: Path) -> None:
    site.hub["o/r"] = {"m.gguf": site.files[PATH]}
    model = model_at(site.url("/o/r/resolve/main/m.gguf"), sha256="0" * 64)
    with pytest.raises(ModelError, match=r"^model\.sha256: .* on the server, not 0000") as caught:
        resolve(model, locations_for(tmp_path), {}, Remembering())
    assert (caught.value.code, caught.value.exit_code) == ("checksum_mismatch", ExitCode.CONFIG)
    assert not list(tmp_path.rglob("*.part"))
    right = hashlib.sha256(site.files[PATH].body).hexdigest()
    assert resolve(
        model_at(site.url("/o/r/resolve/main/m.gguf"), sha256=right), locations_for(tmp_path), {}, Remembering()
    ).model.is_file()
