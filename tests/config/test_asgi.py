"""The ASGI application as a server loads it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as live
from servestatic import ServeStaticASGI

from config.environment import BASE_DIR
from config.server import tracing, workers
from mcp_bridge.application import Application
from mcp_bridge.metrics import multiprocess, prometheus

pytestmark = pytest.mark.once


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> list[str]:
    """What was called, in its order."""
    called: list[str] = []
    settings.STATIC_ROOT = tmp_path / "deep" / "static"
    for module, name in (
        (multiprocess, "prepare_folder"),
        (workers, "bound_statements"),
        (workers, "refuse_uncounted_workers"),
    ):
        monkeypatch.setattr(module, name, lambda name=name: called.append(name))
    return called


def loaded() -> dict[str, Any]:
    return runpy.run_path(str(BASE_DIR / "config" / "asgi.py"))


def test_a_server_checks_itself_and_serves_all_paths(steps: list[str]) -> None:
    found = loaded()
    assert steps == ["prepare_folder", "bound_statements", "refuse_uncounted_workers"]
    assert isinstance(found["application"], Application)
    static = found["static"]
    assert isinstance(static, ServeStaticASGI) and live.STATIC_ROOT.is_dir()
    assert static.application is found["django_application"]


def test_requests_are_traced(steps: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(tracing, "traced", lambda app: ("traced", type(app)))
    assert loaded()["application"] == ("traced", Application)


def test_requests_are_measured_only_with_a_token(
    steps: list[str], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.METRICS_TOKEN = "a token for metrics"
    assert isinstance(loaded()["application"], Application)
    monkeypatch.setattr(prometheus, "ENABLED", True)
    measured = loaded()["application"]
    assert isinstance(measured, prometheus.MetricsMiddleware)
    assert measured.token == "a token for metrics"
    assert isinstance(measured.app, Application)


LATE = ("aiohttp", "jsonschema", "openpyxl", "psycopg", "redis")
"""What a server imports at its first use: each takes 2 to 9 MB of every worker."""


def test_a_server_starts_without_what_few_workers_need(tmp_path: Path) -> None:
    script = "import sys, config.asgi; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=BASE_DIR,
        env={"DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        text=True,
    )
    assert not set(LATE) & set(done.stdout.split())
