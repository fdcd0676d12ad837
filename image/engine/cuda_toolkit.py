"""A CUDA toolkit on plain Debian, assembled from NVIDIA's packages on PyPI.

The packages lack three things that CMake and the linker expect: `lib64`, the unversioned names of the libraries, and
libcuda.so.1, which belongs to the host's driver. For that one there is a stub library with its soname, for the linker
only: it never goes into an image.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from image.engine.recipe import Toolkit


class ToolkitError(Exception):
    """The toolkit could not be assembled."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An assembled toolkit on disk."""

    root: Path

    @property
    def stub(self) -> Path:
        """The stub of the driver's library."""
        return self.root / "lib/stubs/libcuda.so"

    def cmake_arguments(self) -> tuple[str, ...]:
        """Return the arguments that point CMake to this toolkit; paths only, so not part of the cache key."""
        return (
            f"-DCUDAToolkit_ROOT={self.root}",
            f"-DCMAKE_CUDA_COMPILER={self.root / 'bin/nvcc'}",
            f"-DCUDA_cuda_driver_LIBRARY={self.stub}",
        )


def link_names(library_names: list[str]) -> dict[str, str]:
    """Return the unversioned link for each versioned library: libcudart.so -> libcudart.so.13."""
    links = {}
    for name in sorted(library_names):
        stem, dot, version = name.partition(".so.")
        if dot and version.isdigit():
            links[f"{stem}.so"] = name
    return links


def _run(command: list[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ToolkitError(f"{doing} failed (exit {done.returncode}): {' '.join(command[:4])} …\n{tail}")


def complete(root: Path) -> Installed:
    """Add what the unpacked packages at `root` lack. Idempotent."""
    lib = root / "lib"
    lib64 = root / "lib64"
    if not lib64.exists():
        lib64.symlink_to("lib")
    for link, target in link_names([path.name for path in lib.iterdir()]).items():
        if not (lib / link).exists():
            (lib / link).symlink_to(target)
    for program in (*(root / "bin").iterdir(), *(root / "nvvm/bin").glob("*")):
        if program.is_file():
            program.chmod(program.stat().st_mode | 0o111)
    installed = Installed(root)
    installed.stub.parent.mkdir(exist_ok=True)
    if not installed.stub.exists():
        source = installed.stub.with_suffix(".c")
        source.write_text(driver_stub_source(), encoding="utf-8")
        command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(installed.stub), str(source)]
        _run(command, "compiling the stub of libcuda.so.1")
    return installed


_DRIVER_CALLS = """
cuDeviceGet cuDeviceGetAttribute cuGetErrorString cuMemAddressFree cuMemAddressReserve cuMemCreate
cuMemGetAllocationGranularity cuMemMap cuMemRelease cuMemSetAccess cuMemUnmap
"""


def driver_stub_source() -> str:
    """Return C for the driver calls that ggml's CUDA backend links against."""
    return "".join(f"int {name}(void) {{ return 999; }}\n" for name in _DRIVER_CALLS.split())


def _install(packages: tuple[str, ...], folder: Path) -> None:
    """Install `packages` into `folder`, atomically."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="toolkit.", dir=folder.parent) as scratch:
        target = Path(scratch, "site")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-cache-dir", "--target", str(target)]
        _run([*command, *packages], "installing NVIDIA's packages")
        target.rename(folder)


def _folder(toolkit: Toolkit, packages: tuple[str, ...], cache: Path) -> Path:
    name = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:12]
    return cache / f"cuda-{toolkit.version}-{name}"


def assemble(toolkit: Toolkit, cache: Path) -> Installed:
    """Return the toolkit from `cache`, installed there first if missing (about 1.5 GB unpacked)."""
    folder = _folder(toolkit, toolkit.packages, cache)
    if not folder.exists():
        sys.stderr.write(f"downloading the CUDA {toolkit.version} toolkit from PyPI (about 700 MB)\n")
        _install(toolkit.packages, folder)
    return complete(folder / toolkit.folder)


def runtime_library_folder(toolkit: Toolkit, cache: Path) -> Path:
    """Return a folder with the runtime libraries: of the toolkit if it is installed, otherwise of their packages."""
    whole = _folder(toolkit, toolkit.packages, cache)
    if whole.exists():
        return whole / toolkit.folder / "lib"
    packages = tuple(package for package in toolkit.packages if package.split("==")[0] in toolkit.runtime_packages)
    folder = _folder(toolkit, packages, cache)
    if not folder.exists():
        sys.stderr.write(f"downloading the CUDA {toolkit.version} runtime libraries from PyPI\n")
        _install(packages, folder)
    return folder / toolkit.folder / "lib"


def copy_runtime_libraries(folder: Path, names: tuple[str, ...], into: Path) -> None:
    """Copy the libraries that an image needs, by soname."""
    into.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).is_file():
            raise ToolkitError(f"{folder} has no {name}; see runtime_libraries in image/variants.yaml")
        shutil.copyfile(folder / name, into / name)
        (into / name).chmod(0o755)
