"""The size of an image by layer and by owner: `make image-size VARIANT=cpu`.

    python image/scripts/image_size.py --variant cpu [--json] [--check]

Sizes of the layers as in a registry (gzip) and as tar. `--check` fails where a limit is exceeded: our own layers (not
Debian, not CUDA, not the engine) at most 60 MB unpacked, the CPU image at most 120 MB compressed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MEGABYTE = 1_000_000
OWN_LIMIT_BYTES = 60 * MEGABYTE
CPU_COMPRESSED_LIMIT_BYTES = 120 * MEGABYTE

# The owner of a layer, by the Containerfile's instruction. The layer of CUDA's libraries, with the same destination, is
# the one before the engine's.
_OWNERS = (
    ("apt-get install", "debian"),
    ("/opt/llama-gguf/engine/", "engine"),
    ("/opt/llama-gguf/venv/", "ours: packages"),
    ("/opt/llama-gguf/bin/", "ours: code"),
    ("/opt/llama-gguf/app/", "ours: code"),
    ("/versions.json", "ours: versions"),
)


class SizeError(Exception):
    """The image cannot be measured."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image, in bytes."""

    owner: str
    digest: str
    compressed: int
    unpacked: int
    created_by: str


def owners(steps: Sequence[str]) -> list[str]:
    """Return the owner of the layer of each instruction; unknown ones are the base image's."""
    found = [next((owner for text, owner in _OWNERS if text in step), "base") for step in steps]
    if "engine" in found:
        found[found.index("engine")] = "cuda"
    return found


def _unpacked_bytes(blob: Path) -> int:
    total = 0
    with gzip.open(blob) as stream:
        while block := stream.read(1 << 20):
            total += len(block)
    return total


def read_layers(folder: Path) -> list[Layer]:
    """Read the layers of an image that skopeo copied to `folder` (its `dir:` layout)."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    config = json.loads((folder / manifest["config"]["digest"].removeprefix("sha256:")).read_text(encoding="utf-8"))
    steps = [step.get("created_by", "") for step in config["history"] if not step.get("empty_layer")]
    blobs = [folder / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]
    return [
        Layer(owner, diff_id, blob.stat().st_size, _unpacked_bytes(blob), step)
        for owner, step, blob, diff_id in zip(owners(steps), steps, blobs, config["rootfs"]["diff_ids"], strict=True)
    ]


def measure(name: str) -> list[Layer]:
    """Return the layers of the local image `name`."""
    with tempfile.TemporaryDirectory(prefix="image-size.", dir="/var/tmp") as folder:
        command = ["skopeo", "copy", "--quiet", "--dest-compress", f"containers-storage:{name}", f"dir:{folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SizeError(f"cannot read {name}: {done.stderr.strip()}\nbuild it with `make image`")
        return read_layers(Path(folder))


def own_bytes(layers: Sequence[Layer]) -> int:
    """Return the unpacked size of our own layers."""
    return sum(layer.unpacked for layer in layers if layer.owner.startswith("ours"))


def exceeded(layers: Sequence[Layer], variant: str) -> list[str]:
    """Return a message for each exceeded limit."""
    wrong = []
    if (own := own_bytes(layers)) > OWN_LIMIT_BYTES:
        wrong.append(f"our layers have {own / MEGABYTE:.1f} MB unpacked, limit {OWN_LIMIT_BYTES / MEGABYTE:.0f}")
    total = sum(layer.compressed for layer in layers)
    if variant == "cpu" and total > CPU_COMPRESSED_LIMIT_BYTES:
        wrong.append(
            f"the CPU image has {total / MEGABYTE:.1f} MB compressed, limit {CPU_COMPRESSED_LIMIT_BYTES / MEGABYTE:.0f}"
        )
    return wrong


def table(layers: Sequence[Layer]) -> str:
    """Return the sizes as text."""
    lines = [f"{'layer':<16} {'MB compressed':>14} {'MB unpacked':>12}"]
    lines += [
        f"{layer.owner:<16} {layer.compressed / MEGABYTE:>14.2f} {layer.unpacked / MEGABYTE:>12.2f}" for layer in layers
    ]
    compressed, unpacked = sum(layer.compressed for layer in layers), sum(layer.unpacked for layer in layers)
    lines.append(f"{'all':<16} {compressed / MEGABYTE:>14.2f} {unpacked / MEGABYTE:>12.2f}")
    lines.append(f"ours, unpacked: {own_bytes(layers) / MEGABYTE:.1f} MB")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/image_size.py", description="Report the size of an image.")
    parser.add_argument("--variant", required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 where a limit is exceeded")
    options = parser.parse_args(argv)
    try:
        layers = measure(f"localhost/llama-gguf-inference:{options.variant}")
    except SizeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(
        json.dumps([asdict(layer) for layer in layers], indent=1) + "\n" if options.json else table(layers)
    )
    wrong = exceeded(layers, options.variant) if options.check else []
    for line in wrong:
        sys.stderr.write(f"error: {line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
