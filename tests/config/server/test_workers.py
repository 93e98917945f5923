"""What a server process checks and sets, but a command does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from config.server import workers

pytestmark = pytest.mark.once


def set_up(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    monkeypatch.setattr(workers, "settings", SimpleNamespace(**settings))


@pytest.mark.parametrize(
    ("environment", "count", "parent", "refused"),
    [
        ("production", 1, "a parent", True),
        ("production", 1, None, False),
        ("production", 2, "a parent", False),
        ("development", 1, "a parent", False),
    ],
)
def test_an_uncounted_worker_does_not_start_in_production(
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    count: int,
    parent: str | None,
    refused: bool,
) -> None:
    set_up(monkeypatch, ENVIRONMENT=environment, WORKERS=count)
    monkeypatch.setattr("multiprocessing.parent_process", lambda: parent)
    if not refused:
        workers.refuse_uncounted_workers()
        return
    with pytest.raises(SystemExit, match="WORKERS: set it to the value of `uvicorn"):
        workers.refuse_uncounted_workers()


@pytest.mark.parametrize(
    ("engine", "pooler", "before", "after"),
    [
        ("postgresql", False, {}, {"options": "-c x"}),
        ("postgresql", False, {"options": "-c y"}, {"options": "-c y"}),
        ("postgresql", True, {}, {}),
        ("sqlite3", False, {}, {}),
    ],
)
def test_statements_of_servers_have_a_time_limit(
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    pooler: bool,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    """Options of DATABASE_URL win; a pooler gets none."""
    database = {"ENGINE": f"django.db.backends.{engine}", "OPTIONS": before}
    known = {"DATABASES": {"default": database}, "SERVING_OPTIONS": "-c x"}
    set_up(monkeypatch, DATABASE_POOLER=pooler, **known)
    workers.bound_statements()
    assert database["OPTIONS"] == after
