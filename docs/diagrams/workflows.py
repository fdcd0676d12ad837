"""The workflows' jobs, from the files that GitHub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / ".github/workflows"


def draw() -> str:
    """Return the diagram: a box for each workflow that something starts, its jobs and what each job waits for.

    A job that only calls another workflow stands for that workflow's jobs, and bears its name.
    """
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yml"))}
    lines = ["flowchart LR"]
    for name, workflow in found.items():
        events = workflow[True]  # YAML reads the key `on` as a boolean
        started_by = [_event(event, events[event]) for event in events if event != "workflow_call"]
        if started_by:
            lines += [f'  subgraph {name}["{name}: {", ".join(started_by)}"]', "    direction LR"]
            lines += _jobs(name, workflow["jobs"])
            lines += ["  end"]
    return "\n".join(lines)


def _event(name: str, rules: Mapping[str, Any] | list[Any] | None) -> str:
    if name == "push" and isinstance(rules, Mapping):
        return "a tag" if "tags" in rules else f"push to {', '.join(rules['branches'])}"
    return {"workflow_dispatch": "by hand", "schedule": "every week"}.get(name, name.replace("_", " "))


def _jobs(workflow: str, jobs: dict[str, Any]) -> list[str]:
    lines = []
    for job, body in jobs.items():
        called = Path(body["uses"]).name if "uses" in body else ""
        lines.append(f'    {workflow}_{job}[["{called}"]]' if called else f"    {workflow}_{job}[{job}]")
    for job, body in jobs.items():
        needs = body.get("needs", [])
        before = [needs] if isinstance(needs, str) else needs
        if before:
            lines.append(f"    {' & '.join(f'{workflow}_{name}' for name in before)} --> {workflow}_{job}")
    return lines
