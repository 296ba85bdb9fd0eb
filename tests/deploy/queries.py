"""The PromQL that `deploy/` holds: the dashboard's queries and the alerts' expressions."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/reasond.json").read_text())
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
WORDS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool"})


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Panel title and query as it stands in the file."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def filled(query: str, window: str) -> str:
    """A dashboard query with every variable at All, as Grafana sends it."""
    for name, value in {"__rate_interval": window, "route": ".*", "instance": ".*"}.items():
        query = query.replace(f"${name}", value)
    return query


def metric_names(query: str) -> set[str]:
    """The metrics that a query reads: its names that are no functions, labels, numbers, durations or words."""
    query = re.sub(r'"[^"]*"', '""', query)
    query = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", query)
    query = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", query)
    return {
        found[0]
        for found in re.finditer(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()\b", query)
        if not query[found.end() :].lstrip().startswith("(") and found[0] not in WORDS
    }
