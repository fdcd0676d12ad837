"""The engine's wheel reduced to what is used: llama-server, its libraries once each, the package's code.

As built, a wheel contains each library three times in two folders (a zip file cannot store links), headers, and files
for CMake. The copies below llama_cpp/lib are for llama-cpp-python's bindings, which nothing here imports.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

PROGRAM = "llama-server"
_PERMISSIONS = stat.S_IFREG | 0o644
_EXECUTABLE = stat.S_IFREG | 0o755
_LIBRARY = re.compile(r"(?P<plain>lib.+?\.so)(?P<version>(?:\.\d+)*)")


def keep(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of a wheel's files that are needed. Pure.

    Of a library's names (libx.so, libx.so.0, libx.so.0.5.0: the same bytes) the loader opens the soname, which is the
    one with one number; the plain one of a library that has no other, and of a backend in `bin`, which ggml opens by
    its file name.
    """
    names = tuple(names)
    present = set(names)
    return tuple(name for name in names if _is_needed(PurePosixPath(name), present))


def _is_needed(path: PurePosixPath, present: set[str]) -> bool:
    folder, name = str(path.parent), path.name
    if path.parts[0] == "include" or folder.startswith(("lib/", "llama_cpp/lib")):
        return False
    if folder not in ("bin", "lib"):
        return True
    match = _LIBRARY.fullmatch(name)
    if not match:
        return name == PROGRAM
    numbers = match["version"].count(".")
    if folder == "bin":
        return numbers == 0
    versioned = any(other.startswith(f"lib/{match['plain']}.") for other in present)
    return numbers == (1 if versioned else 0)


def slim(source: Path, target: Path) -> None:
    """Write the wheel `source` to `target` with only the needed files, its RECORD updated.

    Programs and libraries get the execute bit, which the build does not set and pip preserves.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        entries = {entry.filename: entry for entry in old.infolist() if not entry.is_dir()}
        record = next(name for name in entries if name.endswith(".dist-info/RECORD"))
        lines = []
        for name in keep(entries):
            if name == record:
                continue
            data = old.read(name)
            runs = PurePosixPath(name).parts[0] in ("bin", "lib")
            _write(new, name, data, entries[name].date_time, _EXECUTABLE if runs else _PERMISSIONS)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
        lines.append(f"{record},,\n")
        _write(new, record, "".join(lines).encode(), entries[record].date_time, _PERMISSIONS)


def _write(
    archive: zipfile.ZipFile, name: str, data: bytes, when: tuple[int, int, int, int, int, int], mode: int
) -> None:
    entry = zipfile.ZipInfo(name, when)
    entry.external_attr = mode << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the engine of `wheel` into `folder`, as when installed; return llama-server's path."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if PurePosixPath(entry.filename).parts[0] in ("bin", "lib"):
                path = Path(archive.extract(entry, folder))
                path.chmod(stat.S_IMODE(_EXECUTABLE))
    return folder / "bin" / PROGRAM
