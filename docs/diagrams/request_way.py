"""The way of a request through the gateway, watched: one chat from a client to a fake engine and back.

What is shown is which part calls which, in the order of the first call, from the moment that bytes arrive from the
client or the engine. Timers, such as the sweep for what takes too long, are not part of it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from types import FrameType

from support.running_gateway import running_gateway

_GATEWAY = "llama_gguf.gateway."
_ARRIVAL = "data_received"
_CARRIED = {"exchange", "headers"}
"""What a request carries along and everything touches: who calls them says nothing about its way."""
_ENDS = {"http1": "client((client))", "upstream": "engine((llama-server))"}
"""The part that hears from it -> the outside."""
_MAX_LETTERS = 20

Calls = dict[tuple[str, str, str], list[str]]
"""Who has sent the bytes, which part calls, which is called -> the names of what is called, in order."""


def draw() -> str:
    """Return the diagram: solid as the request goes, dotted as the response comes."""
    calls = asyncio.run(_watch())
    asked = [(calling, called) for source, calling, called in calls if source == "http1" and called != "http1"]
    lines = ["flowchart TB", f"  {_ENDS['http1']} --> http1"]
    for number, (calling, called) in enumerate(asked, 1):
        lines.append(f"  {calling} -->|{number} {_label(calls['http1', calling, called])}| {called}")
    lines += [f"  upstream --> {_ENDS['upstream']}", "  engine -.-> upstream"]
    reached: set[str] = set()  # the response comes to each part once; what else is called there is cleaning up
    for (source, calling, called), names in calls.items():
        if source == "upstream" and (calling, called) not in asked and called not in reached:
            lines.append(f"  {calling} -.->|{_label(names)}| {called}")
            reached.add(called)
    return "\n".join([*lines, "  http1 -.-> client"])


def _label(names: list[str]) -> str:
    """Return the first of `names`, as many as fit beside an arrow."""
    label = names[0]
    for name in names[1:]:
        if len(label) + len(name) > _MAX_LETTERS:
            return f"{label} …"
        label += f", {name}"
    return label


async def _watch() -> Calls:
    calls: Calls = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        called = _part(frame)
        if event != "call" or not called or (step := _caller(frame)) is None:
            return
        source, calling = step
        if calling != called and not _is_inner(frame):
            names = calls.setdefault((source, calling, called), [])
            names += [frame.f_code.co_name] if frame.f_code.co_name not in names else []

    with tempfile.TemporaryDirectory() as folder:
        async with running_gateway(Path(folder), {}, {}) as running:
            await running.chat()  # what only a first request does is no part of the way
            sys.setprofile(note)
            try:
                await running.chat()
            finally:
                sys.setprofile(None)
    return calls


def _part(frame: FrameType) -> str:
    """Return the part of the gateway that a frame runs in, or "" for what only carries or lies outside."""
    name = frame.f_globals.get("__name__", "")
    part = name.removeprefix(_GATEWAY).partition(".")[0] if name.startswith(_GATEWAY) else ""
    return "" if part in _CARRIED else part


def _caller(frame: FrameType) -> tuple[str, str] | None:
    """Return the part where the bytes arrived that led to this call, and the part that calls; None where none did."""
    calling, source = "", ""
    outer = frame.f_back
    while outer is not None:
        part = _part(outer)
        calling = calling or part
        if part and outer.f_code.co_name == _ARRIVAL:
            source = part
        outer = outer.f_back
    return (source, calling) if source else None


def _is_inner(frame: FrameType) -> bool:
    """Return whether this is no call that a reader would look for: a property, or a method of the language's own."""
    name = frame.f_code.co_name
    owner = type(frame.f_locals.get("self"))
    return name.startswith(("_", "<")) or isinstance(getattr(owner, name, None), property)
