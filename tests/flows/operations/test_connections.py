"""Connections to PostgreSQL: few for each process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection

from tests.support.mcp_client import HTTP, McpClient, mcp_client
from tests.support.server import Portico, database_url, running_server
from tests.support.users import PASSWORD

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
    with running_server(folder, DATABASE_URL=url, HASHING_WAIT="20") as server:
        with ThreadPoolExecutor(1) as background:
            work = background.submit(mixed_load, server, 160)
            seen = [open_connections()]
            while not work.done():
                seen.append(open_connections())
        assert set(work.result()) == {200}
        assert 2 <= max(seen) <= 5, seen
