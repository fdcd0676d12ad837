"""`llama-gguf models` beside a running appliance, on volumes without links, and killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode
from support.appliance import running
from support.file_server import Remote, file_server
from support.limited_filesystem import EXFAT, SMB, supported
from support.patience import PATIENCE

REPO, FILE = "acme/tiny-GGUF", "tiny.gguf"


def models(
    root: Path,
    *arguments: str,
    config: str = "config.yaml",
    code: int = 0,
    refused: tuple[str, ...] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with the system calls of `refused` not available."""
    limits = [sys.executable, "-m", "support.limited_filesystem", *refused, "--"] if refused else []
    done = subprocess.run(
        [*limits, sys.executable, "-m", "llama_gguf.cli", "models", *arguments, "--config", str(root / config)],
        capture_output=True,
        text=True,
        timeout=120 * PATIENCE,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.engine
def test_what_a_running_appliance_uses_stays(tmp_path: Path, tiny_model: Path) -> None:
    """Also if the configuration has changed meanwhile."""
    with file_server() as site:
        site.files["/m.gguf"] = Remote(tiny_model.read_bytes())
        overrides = {"model": {"url": site.url("/m.gguf")}}
        with running(tmp_path, model=None, overrides=overrides) as appliance:
            appliance.wait_ready()
            tree = json.loads(appliance.config.read_text())
            tree["model"] = {"path": str(tiny_model)}
            (tmp_path / "config.yaml").write_text(json.dumps(tree))
            (row,) = json.loads(models(tmp_path, "list", "--json").stdout)["files"]
            assert row["used_by"] == ["model (running)"]
            refused = models(tmp_path, "remove", row["file"], "--yes", code=ExitCode.CONFIG)
            assert f"error: {row['file']} is used by model (running)\n" in refused.stderr
            assert Path(row["path"]).is_file()
            assert appliance.stop() == 0
        assert "Removed 1 files" in models(tmp_path, "remove", row["file"], "--yes").stdout
        assert not Path(row["path"]).exists()


@pytest.mark.skipif(not supported(), reason="the numbers of this machine's system calls are not known")
@pytest.mark.parametrize("refused", [EXFAT, SMB], ids=["exFAT", "SMB"])
def test_versions_on_a_volume_without_links(tmp_path: Path, tiny_model: Path, refused: tuple[str, ...]) -> None:
    (tmp_path / "config.yaml").write_text(
        f"model: {{hf: {{repo: {REPO}, file: {FILE}}}}}\npaths: {{data_dir: {tmp_path}, run_dir: {tmp_path}/run}}\n"
    )
    snapshots = tmp_path / "models" / "huggingface" / "models--acme--tiny-GGUF" / "snapshots"
    with file_server() as site:
        for commit, tail in (("b" * 40, b"1"), ("a" * 40, b"2")):
            site.commit, site.hub[REPO] = commit, {FILE: Remote(tiny_model.read_bytes() + tail)}
            models(tmp_path, "pull", refused=refused, HF_ENDPOINT=site.address)
    assert sorted(path.name for path in snapshots.iterdir()) == ["a" * 40, "b" * 40]
    assert "Removed 1 files" in models(tmp_path, "prune", "--yes", refused=refused).stdout
    assert [path.name for path in snapshots.iterdir()] == ["a" * 40]
    assert "complete; no SHA-256 is known" in models(tmp_path, "verify", refused=refused).stdout


def test_a_pull_that_was_killed_is_listed_kept_and_resumed(tmp_path: Path, tiny_model: Path) -> None:
    body = tiny_model.read_bytes()
    with file_server() as site:
        site.files["/m.gguf"] = Remote(body)
        site.bytes_per_second = len(body) / 20
        tree = f"model: {{url: '{site.url('/m.gguf')}', download_connections: 1}}\n"
        paths = f"paths: {{data_dir: {tmp_path}, run_dir: {tmp_path}/run}}\n"
        (tmp_path / "config.yaml").write_text(tree + paths)
        command = [sys.executable, "-m", "llama_gguf.cli", "models", "pull", "--config", str(tmp_path / "config.yaml")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pull:
            deadline = time.monotonic() + 60 * PATIENCE
            while not (row := _partial(tmp_path)) and time.monotonic() < deadline:
                time.sleep(0.3)
            assert row, "no partial file"
            # Neither with its configuration nor with another one: a download holds its lock.
            models(tmp_path, "prune", "--yes")
            (tmp_path / "other.yaml").write_text("model: {name: other}\n" + paths)
            found = json.loads(models(tmp_path, "prune", "--yes", "--json", config="other.yaml").stdout)["files"]
            assert [one["removed"] for one in found] == [False]
            time.sleep(1.5)  # so that some progress is saved
            pull.send_signal(signal.SIGKILL)
        assert _partial(tmp_path)
        assert "Nothing to remove" in models(tmp_path, "prune", "--yes").stdout
        site.bytes_per_second = None
        site.requests.clear()
        path = Path(models(tmp_path, "pull").stdout.removeprefix("model: ").strip())
        assert path.read_bytes() == body
        assert [headers["range"].startswith("bytes=0-") for headers in site.asked("GET", "/m.gguf")] == [False]


def _partial(root: Path) -> list[dict[str, object]]:
    rows = json.loads(models(root, "list", "--json").stdout)["files"]
    return [row for row in rows if row["state"] == "partial"]
