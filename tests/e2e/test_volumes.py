"""`llama-gguf model download` on volumes that lack what Linux's own file systems have: the kernel refuses the calls."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.file_server import COMMIT, FileServer, Remote, file_server
from support.limited_filesystem import EXFAT, FUSE, SMB, supported
from support.patience import PATIENCE

REPO, FILE = "acme/tiny-GGUF", "tiny.gguf"
pytestmark = pytest.mark.skipif(not supported(), reason="the numbers of this machine's system calls are not known")


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[FileServer]:
    with file_server() as server:
        server.hub[REPO] = {FILE: Remote(tiny_model.read_bytes())}
        yield server


def download(hub: FileServer, root: Path, *refused: str, limit_bytes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with the system calls of `refused` not available."""
    config = root / "config.yaml"
    config.write_text(f"model: {{hf: {{repo: {REPO}, file: {FILE}}}}}\npaths: {{data_dir: {root}}}\n")
    command = [sys.executable, "-m", "llama_gguf.cli", "model", "download", "--config", str(config)]
    return limited(refused, command, limit_bytes=limit_bytes, HF_ENDPOINT=hub.address)


def limited(
    refused: Sequence[str], command: list[str], *, limit_bytes: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the system calls of `refused` not available."""
    return subprocess.run(
        [sys.executable, "-m", "support.limited_filesystem", *refused, "--", *command],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2)) if limit_bytes else None,
    )


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        ((), "symbolic link"),
        (("symlink=EPERM",), "hard link"),
        (("symlink=EOPNOTSUPP", "link=EOPNOTSUPP"), "the file"),
        (FUSE, "the file"),
        (EXFAT, "the file"),
        (SMB, "the file"),
    ],
    ids=["all", "no symlinks", "no links", "FUSE", "exFAT", "SMB"],
)
def test_a_model_is_downloaded_once_and_found_again(
    hub: FileServer, tmp_path: Path, refused: tuple[str, ...], kind: str
) -> None:
    repository = tmp_path / "models" / "huggingface" / "models--acme--tiny-GGUF"
    path = repository / "snapshots" / COMMIT / FILE
    for _ in range(2):
        done = download(hub, tmp_path, *refused)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"model: {path}\n"
    assert len(hub.asked("GET", f"/cdn/{REPO}/{FILE}")) == 1
    assert path.read_bytes() == hub.hub[REPO][FILE].body
    assert path.is_symlink() == (kind == "symbolic link")
    assert path.stat().st_nlink == (2 if kind == "hard link" else 1)
    assert [one.name for one in path.parent.iterdir()] == [FILE]
    blobs = [one.name for one in (repository / "blobs").iterdir() if one.suffix != ".lock"]
    assert len(blobs) == (0 if kind == "the file" else 1)
    assert (repository / "refs" / "main").read_text() == COMMIT


def test_a_directory_that_takes_no_files_costs_no_download(hub: FileServer, tmp_path: Path) -> None:
    """A file in the way of the directory of snapshots, as root can write to any."""
    repository = tmp_path / "models" / "huggingface" / "models--acme--tiny-GGUF"
    repository.mkdir(parents=True)
    (repository / "snapshots").write_text("in the way")
    done = download(hub, tmp_path)
    assert done.returncode == 78
    assert "cannot be created" in done.stderr
    assert not hub.asked("GET", f"/cdn/{REPO}/{FILE}")


def test_a_file_too_large_for_the_file_system_is_told_before_a_byte_is_fetched(hub: FileServer, tmp_path: Path) -> None:
    """As on FAT32; here by the limit that the kernel enforces for a process."""
    hub.hub[REPO][FILE] = Remote(hub.hub[REPO][FILE].body + bytes(4_000_000))
    done = download(hub, tmp_path, limit_bytes=1_000_000)
    assert done.returncode == 78
    assert "File too large" in done.stderr
    assert "FAT32" in done.stderr


@pytest.mark.parametrize("refused", [EXFAT, FUSE, SMB], ids=["exFAT", "FUSE", "SMB"])
def test_keys_and_their_log_on_such_a_volume(tmp_path: Path, refused: tuple[str, ...]) -> None:
    """SMB without locks is refused, because two writers would lose a key; anything else works."""
    keys = tmp_path / "keys.json"
    done = limited(
        refused, [sys.executable, "-m", "llama_gguf.cli", "keys", "generate", "--name", "one", "--keys-file", str(keys)]
    )
    if refused is SMB:
        assert done.returncode == 78
        assert "this file system does not support locks; move the file to one that does" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert keys.is_file()


COUNT = """
import sys
from pathlib import Path
from llama_gguf.gateway.telemetry.usage_store import UsageStore, read
store = UsageStore(Path(sys.argv[1]), flush_seconds=60)
store.open()
store.record("alice", "m", requests=1, errors=0, prompt=100, cached=40, completion=10)
store.close()
print(store.write_failures, sum(used.requests for used in read(Path(sys.argv[1]), by="key", since="2020-01-01")))
"""


def test_usage_on_a_share_that_maps_no_memory_is_there_after_a_restart(tmp_path: Path) -> None:
    """SQLite's write-ahead log shares memory; without it the file has another journal."""
    for refused, requests in ((SMB, 1), (SMB, 2), ((), 3), (SMB, 4)):  # the third time with a log
        done = limited(refused, [sys.executable, "-c", COUNT, str(tmp_path / "usage.sqlite3")])
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["0", str(requests)]
        assert done.stderr == ""
