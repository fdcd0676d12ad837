"""A stand-in for a llama-server that carries several variants of its CPU code, as the images' does.

    engine = VariantEngine.make(folder, ["haswell", "sse42", "x64"], crashes={"haswell": "SIGILL"})
    with running(..., overrides=engine.settings(), env=engine.env(), ...)

It loads the variant that GGML_CPU_VARIANT names, or kills itself by a signal in its place, and answers like
`support.fake_engine`. `starts` tells what was loaded, one start after the other. As a program, through a script where
llama-server would be: `variant_engine.py FOLDER ARGUMENTS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
MARKER = b"\x7fELF with getenv of GGML_CPU_VARIANT in it\0"
SAPPHIRE_RAPIDS = (
    "fpu sse4_2 fma f16c avx avx2 bmi2 avx_vnni avx512f avx512cd avx512vl avx512dq avx512bw avx512vbmi avx512_vnni "
    "avx512_bf16 amx_tile amx_int8"
)


@dataclass(frozen=True)
class VariantEngine:
    """The files of one such engine."""

    folder: Path

    @classmethod
    def make(
        cls, folder: Path, variants: Iterable[str], *, crashes: Mapping[str, str] | None = None, after: float = 0.0
    ) -> VariantEngine:
        """Create the files; `crashes`: variants, each with the signal that terminates it `after` so many seconds."""
        made = cls(folder)
        made.binary.parent.mkdir(parents=True)
        (folder / "lib").mkdir()
        (folder / "lib" / "libggml.so").write_bytes(MARKER)
        for variant in variants:
            made.library(variant).write_text(f"the code of {variant}")
        made.binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{folder}" "$@"\n')
        made.binary.chmod(0o755)
        made.crash(crashes or {}, after=after)
        made.run_on("Intel(R) Xeon(R) Platinum 8581C", SAPPHIRE_RAPIDS)
        return made

    @property
    def binary(self) -> Path:
        return self.folder / "bin" / "llama-server"

    def library(self, variant: str) -> Path:
        return self.binary.with_name(f"libggml-cpu-{variant}.so")

    def crash(self, crashes: Mapping[str, str], *, after: float = 0.0) -> None:
        """Change which variants are terminated by which signal."""
        (self.folder / "knobs.json").write_text(json.dumps({"crashes": dict(crashes), "after": after}))

    def run_on(self, model: str, flags: str) -> None:
        """Set the CPU that the machine reports."""
        (self.folder / "cpuinfo").write_text(f"model name\t: {model}\nflags\t\t: {flags}\n\n")

    def env(self) -> dict[str, str]:
        """The variables that put the appliance's programs on that CPU."""
        path = os.pathsep.join([str(TESTS / "support" / "cpu_box"), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        return {"PYTHONPATH": path, "PYTHON_TEST_CPUINFO": str(self.folder / "cpuinfo")}

    def starts(self) -> list[str]:
        """The variants that were loaded by engines, in order; "-" where none was named."""
        path = self.folder / "starts"
        return path.read_text().split() if path.exists() else []


def main() -> None:
    """Be the engine of FOLDER."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    knobs: dict[str, Any] = json.loads((folder / "knobs.json").read_text())
    variant = os.environ.get("GGML_CPU_VARIANT", "-")
    if "--host" in arguments:
        with (folder / "starts").open("a") as file:
            file.write(variant + "\n")
    if variant in knobs["crashes"]:
        time.sleep(knobs["after"])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.Signals[knobs["crashes"][variant]])
    if "--host" not in arguments:
        sys.stdout.write("version: 1 (stand-in)\nAvailable devices:\n  CUDA0: NVIDIA X (100 MiB, 90 MiB free)\n")
        return
    asyncio.run(_serve(Path(arguments[arguments.index("--host") + 1])))


async def _serve(socket: Path) -> None:
    from support.fake_engine import FakeEngine

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with FakeEngine(socket):
        await ended.wait()


if __name__ == "__main__":
    sys.path[0] = str(TESTS)
    main()
