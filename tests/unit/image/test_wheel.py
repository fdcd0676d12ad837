"""Which of a wheel's files are kept, and that what is written is a wheel that pip takes and that runs."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

from image.engine import wheel

INFO = "llama_cpp_python-0.3.36.dist-info"


def test_llama_server_and_each_library_once() -> None:
    names = [
        "bin/llama-server",
        "bin/llama-cli",
        "bin/convert_hf_to_gguf.py",
        *(f"bin/libggml-cpu-{name}.so{version}" for name in ("zen4", "armv8.0_1") for version in ("", ".0", ".0.25.3")),
        *(f"lib/libllama.so{version}" for version in ("", ".0", ".0.5.0")),
        *(f"lib/libggml-base.so{version}" for version in ("", ".0", ".0.25.3")),
        *(f"llama_cpp/lib/libllama.so{version}" for version in ("", ".0", ".0.5.0")),
        "lib/libllama-server-impl.so",
        "lib/cmake/llama/llama-config.cmake",
        "lib/pkgconfig/llama.pc",
        "include/llama.h",
        "llama_cpp/__init__.py",
        "llama_cpp/server/app.py",
        f"{INFO}/METADATA",
    ]
    assert wheel.keep(names) == (
        "bin/llama-server",
        "bin/libggml-cpu-zen4.so",
        "bin/libggml-cpu-armv8.0_1.so",
        "lib/libllama.so.0",
        "lib/libggml-base.so.0",
        "lib/libllama-server-impl.so",
        "llama_cpp/__init__.py",
        "llama_cpp/server/app.py",
        f"{INFO}/METADATA",
    )


def make_wheel(path: Path) -> Path:
    files = {
        "bin/llama-server": b"#!/bin/sh\necho it runs\n",
        "lib/libllama.so": b"library",
        "lib/libllama.so.0": b"library",
        "lib/libllama.so.0.5.0": b"library",
        "include/llama.h": b"",
        "llama_cpp/__init__.py": b"",
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.36\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
        f"{INFO}/RECORD": b"bin/llama-server,sha256=wrong,3\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_the_list_of_files_is_true_and_only_programs_and_libraries_may_run(tmp_path: Path) -> None:
    slim = tmp_path / "slim.whl"
    wheel.slim(make_wheel(tmp_path / "fat.whl"), slim)
    with zipfile.ZipFile(slim) as archive:
        rows = list(csv.reader(archive.read(f"{INFO}/RECORD").decode().splitlines()))
        assert [row[0] for row in rows] == archive.namelist()
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            assert digest == "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert int(size) == len(data)
        modes = {entry.filename: entry.external_attr >> 16 & 0o777 for entry in archive.infolist()}
    assert {name for name, mode in modes.items() if mode == 0o755} == {"bin/llama-server", "lib/libllama.so.0"}


def test_pip_installs_it_and_the_program_runs(tmp_path: Path) -> None:
    slim = tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl"
    wheel.slim(make_wheel(tmp_path / "fat.whl"), slim)
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(slim),
    ]
    subprocess.run(command, check=True)
    done = subprocess.run([str(target / "bin/llama-server")], capture_output=True, text=True, check=True)
    assert done.stdout == "it runs\n"


def test_unpacked_it_lies_as_installed(tmp_path: Path) -> None:
    slim = tmp_path / "slim.whl"
    wheel.slim(make_wheel(tmp_path / "fat.whl"), slim)
    server = wheel.unpack(slim, tmp_path / "engine")
    assert subprocess.run([str(server)], capture_output=True, text=True, check=True).stdout == "it runs\n"
    assert sorted(path.name for path in (tmp_path / "engine").iterdir()) == ["bin", "lib"]
