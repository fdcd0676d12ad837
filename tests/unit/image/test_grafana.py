"""The dashboard and the alert rules use series and labels that exist, and leave none of ours out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gguf.gateway.telemetry.metric_definitions import ENGINE_SERIES, PROCESS_SERIES, SERIES

GRAFANA = Path(__file__).parents[3] / "image" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"][0]["rules"]

PROMTOOL = shutil.which("promtool")

SCRAPE_LABELS = {"instance", "job"}  # added by Prometheus itself
FUNCTIONS = {"absent", "avg", "histogram_quantile", "increase", "label_values", "max", "min", "rate", "sum"}
WORDS = {"by", "and", "or", "unless", "on", "group_left", "ignoring", "without"}


def known_series() -> dict[str, set[str]]:
    """Return every series that a query may name, with its labels."""
    found = {}
    for declared in SERIES:
        labels = {*declared.labels, "worker_type", *SCRAPE_LABELS, *(("key",) if declared.per_key else ())}
        if declared.kind == "histogram":
            found[f"{declared.name}_bucket"] = labels | {"le"}
            found[f"{declared.name}_sum"] = found[f"{declared.name}_count"] = labels
        else:
            found[declared.name] = labels
    return found | dict.fromkeys((*PROCESS_SERIES, *ENGINE_SERIES), SCRAPE_LABELS)


def queries() -> Iterator[tuple[str, str]]:
    """Yield (where, PromQL) for every query in both files."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def parts(query: str) -> tuple[dict[str, set[str]], set[str]]:
    """Return the series of a query with the labels each is selected by, and the labels it groups by."""
    query = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    grouped = {label.strip() for labels in re.findall(r"\bby\s*\(([^)]*)\)", query) for label in labels.split(",")}
    query = re.sub(r"\bby\s*\([^)]*\)", " ", query)
    variable = re.fullmatch(r"\s*label_values\((.*),\s*(\w+)\)\s*", query)
    if variable:
        query, grouped = variable[1], {variable[2]}
    query = re.sub(r"\[[^]]*\]", " ", query)
    series: dict[str, set[str]] = {}
    for name, labels in re.findall(r"([A-Za-z_][A-Za-z0-9_:]*)\s*(?:\{([^}]*)\})?", query):
        if name not in FUNCTIONS | WORDS:
            selected = {re.split(r"[=!]", matcher)[0].strip() for matcher in labels.split(",") if matcher.strip()}
            series.setdefault(name, set()).update(selected)
    return series, grouped


QUERIES = list(queries())


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[f"{where}-{i}" for i, (where, _) in enumerate(QUERIES)])
def test_every_series_and_label_exists(where: str, query: str) -> None:
    known = known_series()
    series, grouped = parts(query)
    assert series, f"{where}: names no series"
    for name, selected in series.items():
        assert name in known, f"{where}: there is no series {name}"
        assert selected <= known[name], f"{where}: {name} has no label {selected - known[name]}"
        assert grouped <= known[name], f"{where}: {name} has no label {grouped - known[name]}"


def test_the_check_finds_what_is_wrong() -> None:
    series, grouped = parts('sum by (le, nope) (rate(llama_gguf_gone_bucket{route=~"a{b}", x!="y"}[5m])) / other > 0.5')
    assert series == {"llama_gguf_gone_bucket": {"route", "x"}, "other": set()}
    assert grouped == {"le", "nope"}
    assert parts('label_values(llama_gguf_build_info{a="b"}, instance)') == (
        {"llama_gguf_build_info": {"a"}},
        {"instance"},
    )


def test_no_series_of_ours_is_left_out() -> None:
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for _, query in QUERIES for name in parts(query)[0]}
    assert {declared.name for declared in SERIES} <= used


def test_the_dashboard_can_be_imported() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", []):
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= names | {"__rate_interval"}
            assert target["datasource"]["uid"] == "${datasource}"
    assert "__inputs" not in DASHBOARD


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["summary"]) > 10
        assert rule["annotations"]["description"].endswith(".")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    asked = [
        re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m"))
        for _, query in QUERIES
        if not query.startswith("label_values")
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(asked)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    for file in (GRAFANA / "alerts.yaml", tmp_path / "queries.yaml"):
        command = [str(PROMTOOL), "check", "rules", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
