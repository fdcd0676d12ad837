"""Where everything lies: concrete, and chosen by what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.settings import RunDir, locate, parse
from llama_gguf.settings.locations import can_write

MODEL = {"model": {"path": "/m.gguf"}}


@pytest.mark.parametrize(
    ("there", "expected", "reason"),
    [
        ({"/data", "/workspace"}, "/data", "/data exists"),
        ({"/runpod-volume", "/workspace"}, "/runpod-volume", "/runpod-volume exists"),
        ({"/workspace"}, "/workspace", "/workspace exists"),
        (set[str](), "/h/.local/share/llama-gguf", "none of"),
    ],
)
def test_data_dir_is_the_first_that_exists(there: set[str], expected: str, reason: str) -> None:
    found = locate(parse(MODEL), {"HOME": "/h"}, is_dir=lambda path: str(path) in there)
    assert (str(found.data_dir), reason in found.data_dir_reason) == (expected, True)
    assert found.keys_file.parent == found.data_dir
    assert found.models_dir == found.data_dir / "models"


def test_a_mounted_volume_is_taken_before_a_folder_of_the_image() -> None:
    found = locate(parse(MODEL), {}, is_dir=lambda _: True, is_mount=lambda path: str(path) == "/workspace")
    assert (str(found.data_dir), found.data_dir_reason) == ("/workspace", "auto: a volume is mounted at /workspace")


def test_an_old_keys_file_is_found_where_there_is_no_new_one() -> None:
    old = locate(parse(MODEL), {}, is_file=lambda path: path.name == "api_keys.txt")
    both = locate(parse(MODEL), {}, is_file=lambda path: path.name in {"api_keys.txt", "keys.json"})
    assert (old.keys_file.name, both.keys_file.name) == ("api_keys.txt", "keys.json")


def test_xdg_directories_are_used() -> None:
    env = {"XDG_DATA_HOME": "/x/share", "XDG_RUNTIME_DIR": "/x/run"}
    found = locate(parse(MODEL), env, is_dir=lambda _: False, writable=lambda path: str(path).startswith("/x"))
    assert str(found.data_dir) == "/x/share/llama-gguf"
    assert str(found.run.root) == "/x/run/llama-gguf"


@pytest.mark.parametrize(
    ("writable", "expected"), [({"/run/llama-gguf"}, "/run/llama-gguf"), (set[str](), "llama-gguf-")]
)
def test_run_dir_is_the_first_that_can_be_written(writable: set[str], expected: str) -> None:
    found = locate(parse(MODEL), {"XDG_RUNTIME_DIR": "/x"}, writable=lambda path: str(path) in writable)
    assert expected in str(found.run.root)


def test_paths_that_are_given_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {
        **MODEL,
        "paths": {"data_dir": "d", "models_dir": "m", "logs_dir": "l", "run_dir": "r"},
        "auth": {"keys_file": "k.json", "audit_file": "a.jsonl"},
        "limits": {"usage_file": "u.sqlite3"},
    }
    found = locate(parse(tree), {})
    paths = (found.data_dir, found.models_dir, found.logs_dir, found.run.root, found.keys_file, found.audit_file)
    assert [path.relative_to(tmp_path).name for path in paths] == ["d", "m", "l", "r", "k.json", "a.jsonl"]
    assert found.usage_file == tmp_path / "u.sqlite3"


def test_every_name_in_the_run_dir_is_another() -> None:
    run = RunDir(root=Path("/r"))
    names = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    found = [getattr(run, name) for name in names if isinstance(getattr(run, name), Path)]
    assert len(set(found)) == len(found)
    assert all(path.parent == run.root for path in (*found, run.log("engine")))


def test_can_write_looks_at_the_nearest_parent(tmp_path: Path) -> None:
    assert can_write(tmp_path / "a/b/c")
    (tmp_path / "file").write_text("")
    assert not can_write(tmp_path / "file/below")
    assert not can_write(Path("/proc/1/nothing/here"))
