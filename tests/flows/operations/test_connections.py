"""Connections to PostgreSQL: few for each process, and through a pooler."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection

from accounts.models import IssuedToken
from tests.support.mcp_client import HTTP, McpClient, mcp_client
from tests.support.pooler import running_pooler
from tests.support.server import Portico, database_url, run_manage, running_server
from tests.support.users import PASSWORD, hash_as_shipped

pytestmark = [
    pytest.mark.usefixtures("default_users"),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only"),
]
NAME = "portico-counted"
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


def open_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(COUNT, [NAME])
        return int(cursor.fetchone()[0])


def mixed_load(server: Portico, rounds: int) -> list[int]:
    """Statuses of calls, refused tokens, sign-ins and pages, 24 at a time."""
    client = mcp_client(server, "alice")
    fresh = [server.token("carol") for _ in range(20)]
    sign_in = {"username": "bob", "password": PASSWORD}

    def one(number: int) -> int:
        if number % 4 == 0:
            return client.call("look").status_code
        if number % 4 == 1:
            answer = HTTP.post(f"{server.url}/api/token/", json=sign_in)
        elif number % 4 == 2:
            answer = HTTP.get(f"{server.url}/accounts/login/")
        else:
            answer = McpClient(server, fresh[number % len(fresh)]).call("look")
        return int(answer.status_code)

    with ThreadPoolExecutor(24) as pool:
        return list(pool.map(one, range(rounds)))


def test_a_process_opens_at_most_five_connections(rows: None, folder: Path) -> None:
    """Under load, with a slow password hash in the way; nothing fails for it."""
    url = with_option(database_url(), f"application_name={NAME}")
    hash_as_shipped("bob")
    settings = {"HASHING_WAIT": "20", "EXTRA_APPS": "tests.apps.shop"}
    with running_server(folder, DATABASE_URL=url, **settings) as server:
        with ThreadPoolExecutor(1) as background:
            work = background.submit(mixed_load, server, 80)
            seen = [open_connections()]
            while not work.done():
                seen.append(open_connections())
                time.sleep(0.002)
        assert set(work.result()) == {200}
        assert 2 <= max(seen) <= 5, seen


@pytest.fixture(scope="module")
def pooled(
    rows: None, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portico]:
    place = tmp_path_factory.mktemp("pooler")
    with running_pooler(place) as url:
        options = {"DATABASE_URL": url, "DATABASE_POOLER": "true"}
        with running_server(folder, **options) as server:
            yield server


def test_behind_a_pooler_changes_apply_to_the_next_message(pooled: Portico) -> None:
    """PgBouncer in transaction mode runs each statement where it likes."""
    assert set(mixed_load(pooled, 40)) <= {200, 429}
    for _ in range(5):
        client = mcp_client(pooled, "alice")
        assert client.text("look") == "alice looks at shelf"
        IssuedToken.objects.filter(username="alice").revoke(actor=None, reason="test")
        assert client.call("look").status_code == 401
    assert "ERROR" not in pooled.log.read_text()


def command(server: Portico, *arguments: str) -> tuple[int, str]:
    """(exit code, output)."""
    return run_manage({**os.environ, **server.environment}, *arguments)


def test_commands_work_behind_a_pooler_except_migrate(pooled: Portico) -> None:
    for name in ("purge", "seal_audit", "verify_audit", "export_audit"):
        code, output = command(pooled, name)
        assert code == 0, f"{name}: {output}"
    code, output = command(pooled, "migrate")
    assert code == 1 and "DATABASE_POOLER=false" in output
    assert "portico.W009" in command(pooled, "doctor")[1]
