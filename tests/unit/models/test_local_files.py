"""Files in the models directory: found by name, and errors that say what is there instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.inventory import all_tensors
from llama_gguf.models.resolve import resolve
from support.companion_files import write_part
from support.model_box import failure, locations_for, run, settings_for
from support.silent import Silent
from support.tiny_model import write_tiny_model


def test_names_that_are_not_there(models: Path, tmp_path: Path) -> None:
    near = failure(tmp_path, {"name": "tiny-q8_0.gguf"})
    assert near.message == f"model.name: tiny-q8_0.gguf is not in {models}"
    assert near.hint == "did you mean Tiny-Q8_0.gguf?"
    assert failure(tmp_path, {"name": "zzz"}).hint == f"{models} has Tiny-Q8_0.gguf"
    for number in range(12):
        write_tiny_model(models / f"other{number:02}.gguf")
    assert failure(tmp_path, {"name": "zzz"}).hint.endswith("other08.gguf and 3 more")


def test_a_half_downloaded_file(models: Path, tmp_path: Path) -> None:
    (models / "big.gguf.part").write_bytes(b"GGUF")
    assert failure(tmp_path, {"name": "big"}).hint == "there is an unfinished download of it (.part)"
    whole = (models / "Tiny-Q8_0.gguf").read_bytes()
    (models / "cut.gguf").write_bytes(whole[:-1000])
    cut = failure(tmp_path, {"name": "cut"})
    assert cut.code == "model_incomplete"
    assert f"{len(whole) - 1000} of {len(whole)} bytes" in cut.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "is a Git LFS pointer, not a GGUF file"),
        ((99).to_bytes(8, "little") + b'{"__metadata__":{}}', "is a safetensors file, not a GGUF file"),
        (b"PK\x03\x04" + bytes(60), "is a PyTorch file or an archive, not a GGUF file"),
        (b"<!DOCTYPE html><html>" + bytes(60), "is a web page, not a GGUF file"),
        (b"nonsense" * 8, "is not a valid GGUF file: it starts with b'nons', not b'GGUF'"),
        (b"GGUF", "is not a valid GGUF file: it has only 4 bytes"),
        (b"", "is not a valid GGUF file: it has only 0 bytes"),
    ],
)
def test_what_is_no_gguf_file_is_named(models: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (models / "x.gguf").write_bytes(content)
    error = failure(tmp_path, {"name": "x"})
    assert error.message == f"model: {models / 'x.gguf'} {message}"
    assert error.code == "model_not_gguf"
    assert error.hint


def test_what_is_neither_file_nor_directory(tmp_path: Path) -> None:
    """A named pipe would be waited for, and a device read without end."""
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", Path("/dev/zero")):
        error = failure(tmp_path, {"path": str(path)})
        assert error.message == f"model.path: {path} is not a regular file"
        assert error.code == "model_not_a_file"


def test_empty_and_missing_directories(tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    assert failure(tmp_path, {"name": "a"}).hint == f"{locations.models_dir} has no GGUF files"
    locations.models_dir.rmdir()
    with pytest.raises(ModelError, match="no models directory"):
        resolve(settings_for(tmp_path, {"name": "a"}).model, locations, {}, Silent())


def test_paths_that_cannot_be_used(models: Path, tmp_path: Path) -> None:
    assert failure(tmp_path, {"path": str(models / "tiny-Q8.gguf")}).hint == "did you mean Tiny-Q8_0.gguf?"
    assert failure(tmp_path, {"path": "/nowhere/x.gguf"}).hint == ""
    directory = failure(tmp_path, {"path": str(models)})
    assert (directory.code, directory.hint) == ("model_not_a_file", "it has Tiny-Q8_0.gguf")
    (models / "dangling.gguf").symlink_to("/nowhere/x.gguf")
    assert "a link to /nowhere/x.gguf" in failure(tmp_path, {"name": "dangling"}).hint
    assert failure(tmp_path, {"name": "Tiny-Q8_0", "chat_template": "/nowhere"}).message.startswith(
        "model.chat_template"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_unreadable(models: Path, tmp_path: Path) -> None:
    (models / "Tiny-Q8_0.gguf").chmod(0)
    model, locations = settings_for(tmp_path, {"path": str(models / "Tiny-Q8_0.gguf")}).model, locations_for(tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(10001)
            resolve(model, locations, {}, Silent())
        except ModelError as error:
            code = 0 if error.code == "model_not_readable" else 2
        finally:
            os._exit(code)
    # The folders above belong to root and are closed, which is the same error.
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_split_models(models: Path, tmp_path: Path) -> None:
    names = [f"s-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        write_part(models / name, number, len(names))
    assert run(tmp_path, {"name": names[0]}).model == models / names[0]
    assert [tensor.name for tensor in all_tensors(models / names[0])] == [f"blk.{n}.x.weight" for n in range(3)]
    assert failure(tmp_path, {"name": names[1]}).hint == f"name the first: {names[0]}"
    (models / names[2]).write_bytes((models / names[2]).read_bytes()[:-16])
    assert failure(tmp_path, {"name": names[0]}).code == "model_incomplete"
    (models / names[2]).unlink()
    assert failure(tmp_path, {"name": names[0]}).message.endswith(f"{names[2]} does not exist")
    (models / names[0]).rename(models / "renamed.gguf")
    assert failure(tmp_path, {"name": "renamed"}).code == "model_split"


def test_a_model_of_an_architecture_that_the_engine_does_not_load(models: Path, tmp_path: Path) -> None:
    path = models / "Tiny-Q8_0.gguf"
    path.write_bytes(path.read_bytes().replace(b"llama", b"llamx"))
    error = failure(tmp_path, {"name": "Tiny-Q8_0.gguf"})
    assert error.code == "model_unsupported"
    assert error.message == (
        f"model: {path}: its architecture is 'llamx', which the engine does not know (the nearest it knows is llama)"
    )
    assert "newer release" in error.hint
