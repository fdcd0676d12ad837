"""Each way in which the hub refuses: what the operator reads, whether it is tried again, and when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.resolve import resolve_with_retries
from support.file_server import COMMIT, Answer, FileServer, Remote, file_server
from support.model_box import locations_for, settings_for
from support.silent import Silent

REPO, FILE = "acme/tiny-GGUF", "tiny-Q4_K_M.gguf"
TOKEN = "hf_mine0123456789"


@pytest.fixture
def hub(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with file_server() as server:
        server.hub[REPO] = {FILE: Remote(tiny_model.read_bytes())}
        use(server.address, monkeypatch)
        yield server


def use(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def fail(root: Path, env: dict[str, str] | None = None, **model: Any) -> tuple[ModelError, list[float]]:
    """Return the error with which fetching ends, and the pauses before each further attempt."""
    pauses: list[float] = []
    settings = settings_for(root, {"hf": {"repo": REPO, "file": FILE}} | model)
    with pytest.raises(ModelError) as caught:
        resolve_with_retries(
            settings.model, locations_for(root), {"HOME": str(root)} | (env or {}), Silent(), sleep=pauses.append
        )
    assert TOKEN not in caught.value.message + caught.value.hint
    assert caught.value.hint or not caught.value.permanent
    return caught.value, pauses


def file_requests(hub: FileServer) -> list[tuple[str, str]]:
    """The requests for the file: huggingface_hub makes others of its own, once in a process."""
    return [(method, path) for method, path, _ in hub.requests if not path.startswith("/api/")]


@pytest.mark.parametrize(
    ("answer", "env", "message", "hint"),
    [
        (
            Answer(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model acme/tiny is restricted."}),
            {},
            "model.hf: acme/tiny-GGUF is gated, and no token is set: Access to model acme/tiny is restricted.",
            "set a token with access in HF_TOKEN",
        ),
        (
            Answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "You are not in the authorized list."}),
            {"HF_TOKEN": TOKEN},
            "the account of the token in HF_TOKEN has no access: You are not in the authorized list.",
            "accept its terms at huggingface.co/acme/tiny-GGUF with that account",
        ),
        (
            Answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            {"HUGGING_FACE_HUB_TOKEN": TOKEN},
            "model.hf: the Hub does not accept the token (401): Invalid credentials in Authorization header",
            "the token in HUGGING_FACE_HUB_TOKEN is invalid, has expired",
        ),
        (
            Answer(401, {"X-Error-Code": "RepoNotFound"}),
            {"HF_TOKEN": TOKEN},
            "does not exist on the Hub, or the token in HF_TOKEN has no access",
            "check the name",
        ),
        (
            Answer(403, {"X-Error-Message": f"Forbidden\x1b[2J: the key {TOKEN}\tis " + "long " * 100}),
            {"HF_TOKEN": TOKEN},
            "does not accept the token (403): Forbidden?[2J: the key *** is long long",
            "lacks the right",
        ),
        (Answer(403), {}, "model.hf: the Hub denied access (403)", "set a token with access in HF_TOKEN"),
        (Answer(404), {}, "the Hub responded with 404 for", "check HF_ENDPOINT"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), {}, "is not a Hugging Face Hub", "check HF_ENDPOINT"),
    ],
    ids=["gated", "gated for this account", "bad token", "private", "forbidden", "anonymous", "no hub", "web page"],
)
def test_what_stays_refused_is_not_tried_again(
    hub: FileServer, tmp_path: Path, *, answer: Answer, env: dict[str, str], message: str, hint: str
) -> None:
    hub.answer = lambda method, _: answer if method == "HEAD" else None
    error, pauses = fail(tmp_path, env)
    assert message in error.message
    assert len(error.message) < 400
    assert hint in error.hint
    assert (error.exit_code, pauses) == (ExitCode.CONFIG, [])
    assert len(file_requests(hub)) == 1


def test_a_circle_of_redirects_is_no_hub(hub: FileServer, tmp_path: Path) -> None:
    hub.answer = lambda _, path: Answer(307, {"Location": path})
    error, pauses = fail(tmp_path)
    assert error.message == "model.hf: the Hub redirects in a circle"
    assert (error.exit_code, pauses) == (ExitCode.CONFIG, [])


def test_a_host_that_does_not_exist_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    use("http://hub.invalid", monkeypatch)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    error, pauses = fail(tmp_path)
    assert "Name or service not known" in error.message
    assert "DNS" in error.hint
    assert (error.exit_code, len(pauses)) == (ExitCode.UNAVAILABLE, 2)


@pytest.mark.parametrize(
    ("asked", "at_least", "at_most"), [("45", 45, 47), ("0", 1.6, 2.4), ("86400", 300, 302), ("x", 1.6, 2.4)]
)
def test_retry_after_is_heeded_within_bounds(
    hub: FileServer, tmp_path: Path, asked: str, at_least: float, at_most: float
) -> None:
    hub.answer = lambda *_: Answer(429, {"Retry-After": asked, "X-Error-Message": "We had to rate limit your IP."})
    error, pauses = fail(tmp_path)
    assert error.message.endswith("We had to rate limit your IP.")
    assert "HF_TOKEN" in error.hint
    assert error.exit_code == ExitCode.UNAVAILABLE
    assert at_least <= pauses[0] <= at_most
    assert len(pauses) == len(file_requests(hub)) - 1 == 7


def test_a_digest_that_contradicts_the_hubs_is_told_before_the_first_byte(hub: FileServer, tmp_path: Path) -> None:
    digest = hashlib.sha256(hub.hub[REPO][FILE].body).hexdigest()
    error, pauses = fail(tmp_path, sha256="0" * 64)
    assert error.message == (f"model.sha256: {REPO}/{FILE}@main has the SHA-256 {digest} on the Hub, not {'0' * 64}")
    assert (error.exit_code, pauses) == (ExitCode.CONFIG, [])
    assert [method for method, _ in file_requests(hub)] == ["HEAD"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_token_in_a_file_opens_metadata_and_bytes(hub: FileServer, tmp_path: Path) -> None:
    hub.hub_token = TOKEN
    login = tmp_path / ".cache" / "huggingface" / "token"
    login.parent.mkdir(parents=True)
    login.write_text(TOKEN + "\n")
    model = settings_for(tmp_path, {"hf": {"repo": REPO, "file": FILE}}).model
    files = resolve_with_retries(model, locations_for(tmp_path), {"HOME": str(tmp_path)}, Silent())
    assert files.model.is_file()
    sent = {(method, path): hub.asked(method, path)[0].get("authorization") for method, path in file_requests(hub)}
    assert sent == {
        ("HEAD", f"/{REPO}/resolve/main/{FILE}"): f"Bearer {TOKEN}",
        ("GET", f"/{REPO}/resolve/{COMMIT}/{FILE}"): f"Bearer {TOKEN}",
        ("GET", f"/cdn/{REPO}/{FILE}"): None,
    }
    login.write_text("hf_other")
    hub.hub[REPO]["b.gguf"] = hub.hub[REPO][FILE]
    error, _ = fail(tmp_path, hf={"repo": REPO, "file": "b.gguf"})
    assert error.message == f"model.hf: {REPO} is gated, and the account of the token in {login} has no access"
