"""The workflows, as far as they can be judged without GitHub: logic in make, pinned actions, least permissions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github/workflows"
NAMES = ("ci", "docs", "images", "publish", "release", "weekly")
STEP = re.compile(r'make (?:--silent )?(?P<target>[a-z][a-z0-9-]*)(?: >> "\$GITHUB_OUTPUT")?')
WRITERS = {
    ("ci", "publish"): {"packages", "id-token", "attestations"},
    ("docs", "publish"): {"pages", "id-token"},
    ("publish", "publish"): {"packages", "id-token", "attestations"},
    ("release", "publish"): {"packages", "id-token", "attestations"},
    ("release", "release"): {"contents"},
    ("release", "docs"): {"pages", "id-token"},
    ("weekly", "publish"): {"packages", "id-token", "attestations"},
    ("weekly", "pins"): {"contents", "pull-requests"},
}
"""All jobs that may write anything, and what."""


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in NAMES:
        for job, body in load(name)["jobs"].items():
            yield name, job, body


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job, body in jobs():
        for step in body.get("steps", ()):
            yield f"{name}.{job}", step


def make_targets() -> set[str]:
    """Targets with a recipe or prerequisites of their own, not those that only .PHONY names."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return {match[1] for line in lines if (match := re.match(r"([a-z][a-z0-9-]*):(?!=)", line))}


def test_these_are_all_workflows() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.yml" for name in NAMES}


@pytest.mark.parametrize(
    ("where", "step"), [pytest.param(*found, id=f"{found[0]}-{i}") for i, found in enumerate(steps())]
)
def test_every_step_is_a_pinned_action_or_one_make_target_that_exists(where: str, step: dict[str, Any]) -> None:
    if "uses" in step:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", step["uses"]), f"{where}: {step['uses']} is not pinned"
        return
    match = STEP.fullmatch(step["run"].strip())
    assert match, f"{where}: `{step['run']}` is more than a make target"
    assert match["target"] in make_targets(), f"{where}: the Makefile has no target {match['target']}"


def test_a_pin_tells_its_version_and_is_the_same_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for name in NAMES:
        for line in (FOLDER / f"{name}.yml").read_text(encoding="utf-8").splitlines():
            if match := re.search(r"uses: ([\w-]+/[\w.-]+)[\w./-]*@(\S+)(.*)", line):
                assert re.match(r" # v\d+\.\d+\.\d+", match[3]), f"{name}: {line.strip()} has no version"
                found.setdefault(match[1], set()).add(match[2])
    assert {action: pins for action, pins in found.items() if len(pins) != 1} == {}


def test_permissions_are_the_least() -> None:
    for name in NAMES:
        assert load(name)["permissions"] == {"contents": "read"}, name
    for name, job, body in jobs():
        granted = {scope for scope, right in body.get("permissions", {}).items() if right == "write"}
        assert granted == WRITERS.get((name, job), set()), f"{name}.{job}"


def test_no_token_is_left_in_a_checkout_and_every_job_has_a_time_limit() -> None:
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@") and where != "weekly.pins":
            assert step["with"]["persist-credentials"] is False, where
    for name, job, body in jobs():
        assert "uses" in body or 0 < body["timeout-minutes"] <= 360, f"{name}.{job}"


def test_one_gate_needs_every_job_of_a_pull_request() -> None:
    ci = load("ci")
    gate = ci["jobs"]["required"]
    on_push_only = {job for job, body in ci["jobs"].items() if body.get("if") == "github.event_name == 'push'"}
    assert set(gate["needs"]) == set(ci["jobs"]) - {"required"} - on_push_only
    assert gate["if"] == "always()"


def test_a_release_is_tested_pinned_and_complete_before_anything_is_public() -> None:
    release = load("release")["jobs"]
    assert release["images"]["with"] == {"hosted": True, "base": "pinned", "save": True}
    assert [release[job]["needs"] for job in ("images", "publish", "release")] == ["check", "images", "publish"]
    order = [step.get("run") or step["uses"].partition("@")[0] for step in load("publish")["jobs"]["publish"]["steps"]]
    wanted = [
        'make --silent image-push >> "$GITHUB_OUTPUT"',
        "anchore/sbom-action",
        "anchore/scan-action",
        "actions/attest",
        "make image-sign",
        "make image-tag",
    ]
    positions = [order.index(step) for step in wanted]
    assert positions == sorted(positions)
    assert order[-1] == "make image-tag"


def test_the_site_is_built_at_each_change_and_published_with_a_release_only() -> None:
    docs = load("docs")
    on = yaml.safe_load((FOLDER / "docs.yml").read_text(encoding="utf-8"))[True]  # YAML reads `on` as a boolean
    assert on == {"push": {"branches": ["main"]}, "pull_request": None, "workflow_call": on["workflow_call"]}
    _, build, upload = docs["jobs"]["build"]["steps"]
    assert build == {"run": "make docs"}
    assert upload["if"] == docs["jobs"]["publish"]["if"] == "inputs.publish"
    assert docs["jobs"]["publish"]["needs"] == "build"
    callers = {f"{name}.{job}": body for name, job, body in jobs() if body.get("uses", "").endswith("/docs.yml")}
    assert list(callers) == ["release.docs"]
    assert callers["release.docs"]["needs"] == "release"
    assert callers["release.docs"]["if"] == "${{ !contains(github.ref_name, '-') }}"


def test_the_engine_is_cached_under_its_own_key_and_before_a_test_can_fail() -> None:
    steps = load("images")["jobs"]["build"]["steps"]
    order = [step.get("run") or step["uses"].partition("@")[0] for step in steps]
    restore, save = (steps[order.index(f"actions/cache/{what}")] for what in ("restore", "save"))
    assert restore["with"] == save["with"] == {"path": "~/.cache/llama-gguf", "key": "engine-${{ matrix.engine }}"}
    assert order.index("make image") < order.index("actions/cache/save") < order.index("make image-test")
    assert save["if"] == f"steps.{restore['id']}.outputs.cache-hit != 'true'"


def test_the_cache_of_ones_own_engine_follows_everything_that_shapes_it() -> None:
    cache = next(step for where, step in steps() if where == "ci.test" and "actions/cache@" in step.get("uses", ""))
    assert "hashFiles('image/variants.yaml', 'image/engine/*')" in cache["with"]["key"]


def test_room_is_made_for_cuda_before_anything_big_is_there() -> None:
    steps = load("images")["jobs"]["build"]["steps"]
    order = [step.get("run", "") for step in steps]
    assert steps[order.index("make free-space")]["if"] == "matrix.variant != 'cpu'"
    assert order.index("make free-space") < order.index("make image")


def test_nothing_is_built_between_the_test_and_the_push() -> None:
    order = [step.get("run") or step["uses"].partition("@")[0] for step in load("images")["jobs"]["build"]["steps"]]
    assert order.index("make image") < order.index("make image-test") < order.index("make image-save")
    assert not [step for step in load("publish")["jobs"]["publish"]["steps"] if step.get("run") == "make image"]


def test_the_scan_stops_on_fixable_criticals() -> None:
    scan = next(step for where, step in steps() if step.get("uses", "").startswith("anchore/scan-action"))
    assert scan["with"]["only-fixed"] is True
    assert scan["with"]["fail-build"] is True
    assert scan["with"]["severity-cutoff"] == "critical"


def test_a_rebuild_runs_every_week() -> None:
    on = yaml.safe_load((FOLDER / "weekly.yml").read_text(encoding="utf-8"))[
        True
    ]  # YAML reads the key `on` as a boolean
    assert len(on["schedule"]) == 1
    # By tag: a pinned digest would give last month's Debian again.
    assert load("weekly")["jobs"]["images"]["with"]["base"] == "newest"
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", on["schedule"][0]["cron"])
