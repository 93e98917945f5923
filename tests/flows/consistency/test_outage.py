"""Database outages: 503 with Retry-After, nothing allowed, recovery by itself."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, connections

from accounts.models import AuditEvent
from tests.support.mcp_client import ERAS_ONCE, HTTP, McpClient, mcp_client
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD

pytestmark = pytest.mark.usefixtures("default_users")


@pytest.fixture(scope="module")
def short_timeout_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server that waits one second for SQLite's lock."""
    settings = {}
    if connection.vendor == "sqlite":
        name = connection.settings_dict["NAME"]
        settings["DATABASE_URL"] = f"sqlite:///{name}?timeout=1"
    with running_server(folder, **settings) as running:
        yield running


@contextmanager
def locked_sqlite() -> Iterator[None]:
    """Another connection holds the write lock."""
    holder = sqlite3.connect(
        str(connection.settings_dict["NAME"]), isolation_level=None
    )
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.rollback()
        holder.close()


@contextmanager
def closed_postgres() -> Iterator[None]:
    """The database refuses new connections and closes open ones."""
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    alias: Any = connections.create_connection("default")
    alias.settings_dict = {**connection.settings_dict, "NAME": "postgres"}
    alias.settings_dict["OPTIONS"] = {
        k: v for k, v in connection.settings_dict["OPTIONS"].items() if k != "pool"
    }
    with alias.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [name],
        )
        try:
            yield
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    alias.close()


def database_outage() -> Any:
    return locked_sqlite() if connection.vendor == "sqlite" else closed_postgres()


@pytest.mark.spec("access is refused when a dependency fails")
@pytest.mark.parametrize("era", ERAS_ONCE)
def test_without_a_database_every_message_is_refused(
    short_timeout_server: Portico, server: Portico, era: str
) -> None:
    """503 with Retry-After, never 500; the server recovers by itself."""
    client = mcp_client(short_timeout_server, "alice", era)
    body = {"username": "alice", "password": PASSWORD}
    token_url = f"{short_timeout_server.url}/api/token/"
    before = AuditEvent.objects.filter(action="tool.called").count()
    with database_outage():
        called = client.call("look")
        issued = HTTP.post(token_url, json=body)
        health = HTTP.get(f"{short_timeout_server.url}/healthz")
        ready = HTTP.get(f"{short_timeout_server.url}/readyz")
    assert health.status_code == 200
    if connection.vendor == "postgresql":
        assert ready.status_code == 503
        assert ready.json()["problems"]["database"]
    for refused in (called, issued):
        assert refused.status_code == 503, refused.text
        assert refused.headers["retry-after"] and "looks" not in refused.text
        assert "Traceback" not in refused.text
    assert AuditEvent.objects.filter(action="tool.called").count() == before
    bystander = mcp_client(server, "alice")
    for somebody in (client, bystander):
        for _ in range(20):
            if somebody.call("look").status_code == 200:
                break
    assert client.text("look") == "alice looks at shelf"
    assert HTTP.post(token_url, json=body).status_code == 200


def copy_database(path: Path) -> None:
    """This run's database, copied into a file."""
    source = sqlite3.connect(str(connection.settings_dict["NAME"]))
    target = sqlite3.connect(path)
    source.backup(target)
    target.close()
    source.close()


@pytest.mark.once
def test_a_file_replaced_under_a_running_server_stops_all_decisions(
    rows: None, tmp_path: Path
) -> None:
    """As if restore.sh ran while the server was running."""
    path = tmp_path / "odd %41 name.sqlite3"
    copy_database(path)
    url = f"sqlite:///{quote(str(path))}"
    with running_server(tmp_path, DATABASE_URL=url) as running:
        client = McpClient(running, running.signed_in("alice", PASSWORD))
        assert client.text("look") == "alice looks at shelf"
        copy_database(tmp_path / "new")
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink()
        os.replace(tmp_path / "new", path)
        until = time.monotonic() + 30
        ready = HTTP.get(f"{running.url}/readyz")
        assert ready.status_code == 503
        assert "restart the server" in ready.json()["problems"]["database_file"]
        while client.call("look").status_code != 503:
            assert time.monotonic() < until
        refused = client.call("look")
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert str(path) in running.log.read_text()
        assert HTTP.get(f"{running.url}/healthz").status_code == 200
    with running_server(tmp_path, DATABASE_URL=url) as running:
        client = McpClient(running, running.signed_in("alice", PASSWORD))
        assert client.text("look") == "alice looks at shelf"
