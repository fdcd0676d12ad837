"""Checksums are compared once and remembered for as long as the file stays the same one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.checksum import VerifiedFiles, file_sha256, verify
from support.model_box import Remembering

BODY = os.urandom(9_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(BODY)
    return path


def check(model: Path, verified: VerifiedFiles, sha256: str = SHA256) -> Remembering:
    reporter = Remembering()
    verify(model, sha256, "model", verified, reporter)
    return reporter


def test_digest_with_progress(model: Path) -> None:
    reporter = Remembering()
    assert file_sha256(model, reporter) == SHA256
    assert reporter.steps[-1] == (len(BODY), len(BODY))
    assert len(reporter.steps) == 3


def test_computed_once(model: Path, tmp_path: Path) -> None:
    verified = VerifiedFiles(tmp_path / "v")
    assert check(model, verified).kinds() == ["verifying"]
    assert check(model, verified).kinds() == []
    assert check(model, VerifiedFiles(tmp_path / "v")).kinds() == []


def test_a_link_is_the_file_it_leads_to(model: Path, tmp_path: Path) -> None:
    verified = VerifiedFiles(tmp_path / "v")
    check(model, verified)
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    assert check(link, verified).kinds() == []


def test_a_changed_file_is_computed_again(model: Path, tmp_path: Path) -> None:
    verified = VerifiedFiles(tmp_path / "v")
    check(model, verified)
    os.utime(model, ns=(1, 1))
    assert check(model, verified).kinds() == ["verifying"]
    model.write_bytes(BODY[:-1])
    with pytest.raises(ModelError, match=r"model\.sha256"):
        check(model, verified)


def test_mismatch(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        check(model, VerifiedFiles(tmp_path / "v"), "0" * 64)
    assert caught.value.code == "checksum_mismatch"
    assert caught.value.exit_code == ExitCode.CONFIG
    assert SHA256 in caught.value.message


def test_a_memory_that_cannot_be_written_costs_only_time(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "v").write_text("a file")
    verified = VerifiedFiles(tmp_path / "v")
    assert check(model, verified).kinds() == ["verifying"]
    assert check(model, verified).kinds() == ["verifying"]
    assert "computed again" in caplog.text


def test_a_damaged_memory_is_no_memory(model: Path, tmp_path: Path) -> None:
    verified = VerifiedFiles(tmp_path / "v")
    check(model, verified)
    for marker in (tmp_path / "v").iterdir():
        marker.write_text("{")
    assert check(model, verified).kinds() == ["verifying"]
