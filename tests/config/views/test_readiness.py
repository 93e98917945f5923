"""/readyz: each part that is not ready is named, with the fix."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder
from django.test import RequestFactory

from accounts.crypto.signing_keys import load_private_key
from accounts.models import SigningKey
from accounts.rate_limits import store
from config.environment import BASE_DIR
from config.views import readiness
from mcp_bridge.cache import decision_cache
from mcp_bridge.server import mcp

pytestmark = [pytest.mark.django_db, pytest.mark.once]
PARTS = {
    "database",
    "migrations",
    "signing_key",
    "database_file",
    "session_manager",
}
URL = "redis://store"


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Everything is ready; each test breaks one part."""
    monkeypatch.setattr(mcp, "running", True)
    monkeypatch.setattr(decision_cache, "replaced", lambda: False)
    SigningKey.objects.ensure_active()
    settings.VALKEY_URL = ""


def answer() -> tuple[int, dict[str, Any], Any]:
    response = readiness.readyz(RequestFactory().get("/readyz"))
    assert response["Cache-Control"] == "no-store"
    return response.status_code, json.loads(response.content), response


def problems() -> dict[str, str]:
    """The parts that are not ready; the response is 503 with Retry-After."""
    status, body, response = answer()
    assert status == 503 and body.pop("status") == "not ready"
    assert response["Retry-After"] == "5"
    found: dict[str, str] = body.pop("problems")
    assert body == {}
    return found


def test_a_server_with_all_parts_is_ready() -> None:
    status, body, response = answer()
    assert (status, body) == (200, {"status": "ready"})
    assert "Retry-After" not in response


def test_every_part_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [readiness.database, *readiness.IN_DATABASE, *readiness.ELSEWHERE]
    assert {part.__name__ for part in parts} == PARTS
    monkeypatch.setattr(readiness, "DISPENSABLE", [])
    monkeypatch.setattr(
        readiness, "problem", lambda part: "" if part is readiness.database else "no"
    )
    assert problems() == dict.fromkeys(PARTS - {"database"}, "no")


class Away:
    """A connection without a database."""

    def cursor(self) -> Any:
        raise OperationalError("password of user x is wrong")


def test_without_a_database_only_the_other_parts_are_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The public answer does not quote the database; the log does."""
    monkeypatch.setattr(readiness, "connection", Away())
    monkeypatch.setattr(mcp, "running", False)
    monkeypatch.setattr(readiness, "IN_DATABASE", [])
    assert problems() == {
        "database": "The database does not answer.",
        "session_manager": "The MCP session manager does not run.",
    }
    assert "database is not ready: password of user x" in caplog.text


def test_without_a_database_its_parts_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would wait for the same timeout."""
    monkeypatch.setattr(readiness, "connection", Away())
    monkeypatch.setattr(readiness, "IN_DATABASE", [lambda: 1 / 0])
    assert set(problems()) == {"database"}


def test_a_replaced_database_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_cache, "replaced", lambda: True)
    assert problems() == {
        "database_file": "The database was replaced or removed: restart the server."
    }


def test_missing_migrations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = readiness.expected() | {("accounts", "9998_x"), ("mcp_bridge", "9999_x")}
    monkeypatch.setattr(readiness, "expected", lambda: newer)
    assert problems() == {"migrations": "2 apps wait for manage.py migrate."}


@pytest.mark.parametrize("app", ["accounts", "mcp_bridge"])
def test_the_newest_migration_of_each_app_is_expected(app: str) -> None:
    newest = max(path.stem for path in (BASE_DIR / app / "migrations").glob("0*.py"))
    assert newest > "0002"
    MigrationRecorder.Migration.objects.get(app=app, name=newest).delete()
    assert problems() == {"migrations": "1 app waits for manage.py migrate."}


def test_a_newer_schema_is_ready() -> None:
    """During a roll-out the old code still serves."""
    MigrationRecorder.Migration.objects.create(app="accounts", name="9999_newer")
    assert answer()[0] == 200
    assert {app for app, _name in readiness.expected()} >= {"accounts", "mcp_bridge"}


def test_a_missing_signing_key_is_named() -> None:
    SigningKey.objects.filter(state="active").update(state="retired")
    assert problems() == {
        "signing_key": "No signing key is active: run manage.py rotate_signing_key."
    }


def test_a_key_of_another_encryption_key_is_named(settings: Any) -> None:
    settings.KEY_ENCRYPTION_KEY = "another"
    load_private_key.cache_clear()
    assert problems() == {
        "signing_key": "The signing key does not open with this KEY_ENCRYPTION_KEY."
    }


@pytest.mark.parametrize("running", [True, False])
def test_a_store_that_is_away_degrades_a_process(
    monkeypatch: pytest.MonkeyPatch, settings: Any, running: bool
) -> None:
    """Messages are still served, so proxies must not take the process out."""
    settings.VALKEY_URL = "redis://127.0.0.1:1"
    monkeypatch.setattr(mcp, "running", running)
    status, body, response = answer()
    assert (status, response.get("Retry-After")) == (
        (200, None) if running else (503, "5")
    )
    assert body.pop("status") == ("ready" if running else "not ready")
    text = "The store of the rate limits does not answer."
    assert body.pop("degraded") == {"shared_store": text}
    assert set(body.pop("problems", {})) == (set() if running else {"session_manager"})


def test_a_store_that_answers_is_not_named(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.VALKEY_URL = URL
    limiter = SimpleNamespace(storage=SimpleNamespace(check=lambda: True))
    stores = {URL: SimpleNamespace(limiter=limiter)}
    monkeypatch.setattr(store, "shared_store", stores.__getitem__)
    assert answer()[:2] == (200, {"status": "ready"})


def test_the_session_manager_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "running", False)
    assert problems() == {"session_manager": "The MCP session manager does not run."}
