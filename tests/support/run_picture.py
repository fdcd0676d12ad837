"""Makes docs/run.svg, the README's picture: `make run` and the first request, really run, as a terminal shows them.

`make picture` runs it. It is no part of `make gen`, because the times of one run are not those of the next.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.text import Text

from .ports import free_ports
from .terminal import terminal

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 112
_STYLES = {r"^\$ .*": "bold", r"\bINFO\b": "green", r"\bWARNING\b": "yellow", r"^\S+Z \|": "dim"}


def main() -> int:
    """Run, draw, write."""
    with tempfile.TemporaryDirectory() as folder:
        screen = _run(Path(folder))
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in screen.splitlines():
        text = Text(line)
        for pattern, style in _STYLES.items():
            text.highlight_regex(pattern, style)
        console.print(text)
    svg = console.export_svg(title="llama-gguf-inference", unique_id="run")
    # Rich's own form loads a font from the network; a reader's own will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    (ROOT / "docs/run.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    return 0


def _run(folder: Path) -> str:
    """Return what a person sees who runs and asks, without what is theirs or this machine's."""
    port, health_port = free_ports(2)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_GGUF", "MAKE", "MFLAGS"))},
        "XDG_DATA_HOME": str(folder / "share"),
        "LLAMA_GGUF__PATHS__DATA_DIR": str(folder / "data"),
        "LLAMA_GGUF__PATHS__RUN_DIR": str(folder / "run"),
        "LLAMA_GGUF__GATEWAY__PORT": str(port),
        "LLAMA_GGUF__HEALTH__PORT": str(health_port),
    }
    log = folder / "screen.txt"
    with terminal(log, columns=COLUMNS) as tty:
        process = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=environment, stdout=tty, stderr=tty, start_new_session=True
        )
        try:
            _wait(health_port, process)
            time.sleep(1)  # for what is said about being ready
            seen = log.read_text(encoding="utf-8")
            curl = re.search(r"^Try: (.*)$", seen, re.MULTILINE)
            if curl is None:
                raise SystemExit(f"no line to paste:\n{seen}")
            answer = subprocess.run(["bash", "-c", curl[1]], capture_output=True, text=True, check=True).stdout
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    said = json.loads(answer)["choices"][0]["message"]["content"]
    pasted = f"{curl[1]} | jq -r '.choices[0].message.content'"
    text = f"$ make run\n{seen}\n$ {pasted}\n{said}\n".replace("\r", "")
    for own, shown in {
        str(folder / "run"): "/run/llama-gguf",
        str(folder / "data"): "~/.local/share/llama-gguf",
        str(ROOT): "…",
        f":{port}": ":8000",
        f"port={port}": "port=8000",
        f"port={health_port}": "port=8001",
    }.items():
        text = text.replace(own, shown)
    return re.sub(r"sk-[\w-]{43}", "sk-…", text)


def _wait(health_port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the appliance is ready, as long as it lives."""
    while process.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{health_port}/ping", timeout=2) as response,
        ):
            if response.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit("it ended before it was ready")


if __name__ == "__main__":
    sys.exit(main())
