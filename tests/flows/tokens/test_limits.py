"""Rate limits: exact across processes, per token before address, store outages."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from accounts.models import AuditEvent
from tests.support.mcp_client import McpClient, mcp_client
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD
from tests.support.valkey import valkey

pytestmark = [pytest.mark.usefixtures("default_users"), pytest.mark.once]
STRICT = {
    "TRUSTED_PROXIES": "127.0.0.1",
    "LIMIT_MCP": "20/hour",
    "LIMIT_TOKEN": "20/hour",
    "LIMIT_MCP_REFUSED": "5/hour",
    "LIMIT_PASSWORD": "30/hour",
    "LIMIT_REGISTER": "3/hour",
    "LIMIT_AUTHORIZE": "4/hour",
    "LIMIT_DEVICE": "2/hour",
    "LIMIT_INTROSPECT": "2/hour",
}


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    with valkey() as running:
        yield running


@pytest.fixture(scope="module")
def three_servers(rows: None, folder: Path, store: Any) -> Iterator[Portico]:
    """Three processes that share one store."""
    url = store.connection_url
    settings = {**STRICT, "WORKERS": "3", "VALKEY_URL": url, "LIMIT_MCP": "100/hour"}
    with running_server(folder, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def single_server(rows: None, folder: Path) -> Iterator[Portico]:
    """One process with its own counts."""
    with running_server(folder, **STRICT) as running:
        yield running


def statuses(many: int, send: Any) -> Counter[int]:
    """The statuses of `many` requests, ten in parallel, each on a new connection."""
    with ThreadPoolExecutor(10) as crowd:
        found = list(crowd.map(lambda n: send(n), range(many)))
    refused = [answer for answer in found if answer.status_code == 429]
    assert all(1 <= int(answer.headers["retry-after"]) <= 7200 for answer in refused)
    return Counter(answer.status_code for answer in found)


def ping(server: Portico, token: str, address: str = "192.0.2.1") -> httpx2.Response:
    """One message on a new connection."""
    message = McpClient(server, token)
    headers = {**message.headers("ping", {}), "x-forwarded-for": address}
    body = {"jsonrpc": "2.0", "id": 1, "method": "notifications/cancelled"}
    return httpx2.post(
        server.mcp_url, json=body, headers=headers, timeout=30, verify=False
    )


def token_request(
    server: Portico, client: str, address: str = "192.0.2.1"
) -> httpx2.Response:
    """A token request of an unknown client."""
    form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": "x"}
    headers = {"x-forwarded-for": address}
    return httpx2.post(
        f"{server.url}/oauth/token",
        data=form,
        headers=headers,
        timeout=30,
        verify=False,
    )


@pytest.mark.spec("RFC 6585 4")
def test_three_processes_let_exactly_a_hundred_through(three_servers: Portico) -> None:
    """Valkey counts for all processes."""
    token = three_servers.token("alice")
    counts = statuses(130, lambda n: ping(three_servers, token))
    assert counts[429] == 30, counts
    counts = statuses(30, lambda n: token_request(three_servers, "somebody"))
    assert counts == {401: 20, 429: 10}


def test_the_token_is_counted_before_the_address(single_server: Portico) -> None:
    """One hosted client's address does not lock everyone out."""
    loud, quiet = single_server.token("alice"), single_server.token("bob")
    assert statuses(25, lambda n: ping(single_server, loud))[429] == 5
    assert ping(single_server, quiet).status_code != 429
    last = AuditEvent.objects.filter(action="request.refused").count()
    counts = statuses(8, lambda n: ping(single_server, "e30.e30.e30"))
    assert counts == {401: 5, 429: 3}
    assert AuditEvent.objects.filter(action="request.refused").count() == last + 5
    counts = statuses(50, lambda n: ping(single_server, f"e30.e30.{n}"))
    assert counts == {401: 45, 429: 5}
    assert ping(single_server, quiet).status_code != 429
    assert ping(single_server, "e30.e30.new", "192.0.2.7").status_code == 401


def test_clients_of_one_address_are_counted_apart(single_server: Portico) -> None:
    """IPv6 neighbours of one household count together."""
    counts = statuses(
        23, lambda n: token_request(single_server, "one", f"2001:db8::{n + 1:x}")
    )
    assert counts[429] == 3
    assert token_request(single_server, "two", "2001:db8::1").status_code == 401
    assert token_request(single_server, "one", "2001:db8:0:1::1").status_code == 401


@pytest.mark.spec("access is refused when a dependency fails")
def test_without_the_store_sign_in_stops_and_mcp_continues(
    rows: None, folder: Path
) -> None:
    """503 with Retry-After for passwords; tokens are counted in the process."""
    with valkey() as store:
        port, url = store.port, store.connection_url
        with running_server(folder, VALKEY_URL=url, **STRICT) as server:
            body = {"username": "alice", "password": PASSWORD}
            door, client = f"{server.url}/api/token/", mcp_client(server, "alice")
            assert httpx2.post(door, json=body, verify=False).status_code == 200
            store.stop()
            refused = httpx2.post(door, json=body, verify=False)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
            assert client.text("look") == "alice looks at shelf"
            assert token_request(server, "somebody").status_code == 401
            with valkey(port):
                back = time.monotonic() + 5
                while httpx2.post(door, json=body, verify=False).status_code != 200:
                    assert time.monotonic() < back, "not back within 5 s"
                assert client.text("look") == "alice looks at shelf"
            assert "rate limit store is unavailable" in server.log.read_text()
