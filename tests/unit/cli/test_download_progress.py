"""The progress of a download on a terminal, and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress

from llama_gguf.cli.download_progress import Bar, Lines
from llama_gguf.states import Phase


def test_lines_come_every_few_seconds() -> None:
    now, lines = [0.0], list[str]()
    reporter = Lines(lines.append, tick=lambda: now[0])
    reporter.phase(Phase.DOWNLOADING, "x")
    for second in range(1, 12):
        now[0] = float(second)
        reporter.progress(second << 20, 20 << 20 if second < 8 else None)
    assert lines == ["downloading: x", "  5 MiB of 20 MiB: 25%, 1.0 MiB/s, 15 s left", "  10 MiB, 1.0 MiB/s"]


def test_a_bar_moves() -> None:
    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=100), auto_refresh=False) as progress:
        bar = Bar(progress)
        bar.phase(Phase.DOWNLOADING, "x.gguf")
        bar.progress(50, 100)
        progress.refresh()
    assert "downloading: x.gguf" in out.getvalue()
    assert "50%" in out.getvalue()
