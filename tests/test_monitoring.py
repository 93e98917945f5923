"""deploy/prometheus and deploy/grafana: valid, and about series that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from mcp_bridge.metrics import prometheus, service
from tests.support.requirements_skip import skip_or_fail
from tests.support.server import ROOT

pytestmark = pytest.mark.once
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/portico.json"


def known() -> set[str]:
    """Our series, as Prometheus stores them."""
    assert prometheus.requests and service.info
    families = [f for f in REGISTRY.collect() if f.name.startswith("portico_")]
    names = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    parts = ("_bucket", "_count", "_sum")
    return names | {
        f.name + part for f in families if f.type == "histogram" for part in parts
    }


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0][
        "rules"
    ]
    return found


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + shown


def test_rules_and_dashboard_use_series_that_exist() -> None:
    named = {n for text in expressions() for n in re.findall(r"\bportico_\w+", text)}
    assert len(named) > 20 and named <= known(), named - known()


def test_every_series_is_documented() -> None:
    text = (ROOT / "docs/production.md").read_text()
    documented = set(re.findall(r"`(portico_\w+)`", text))
    series = {
        name for name in known() if not name.endswith(("_bucket", "_count", "_sum"))
    }
    assert documented == series, documented ^ series


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 12
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_every_alert_is_tested() -> None:
    tests = (ROOT / "tests/prometheus_alerts.yml").read_text()
    assert all(rule["alert"] in tests for rule in rules())


def test_panels_have_a_place_and_a_unit() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(places) == len(set(places))
    assert all(p["fieldConfig"]["defaults"]["unit"] for p in dashboard["panels"])
    assert len({p["id"] for p in dashboard["panels"]}) == len(places)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "deploy/prometheus/alerts.yml"),
        ("test", "rules", "tests/prometheus_alerts.yml"),
        ("check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml"),
    ],
)
def test_prometheus_accepts_the_rules(arguments: tuple[str, ...]) -> None:
    """promtool evaluates them on recorded series: a healthy and several bad hours."""
    if shutil.which("promtool") is None:
        skip_or_fail("promtool", "apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
