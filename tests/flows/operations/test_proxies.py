"""Behind a proxy that ends TLS: the audited address, and forged headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from accounts.models import AuditEvent
from tests.support.mcp_client import HTTP
from tests.support.server import Portico, running_server

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
WAY = {"x-forwarded-for": "6.6.6.6, 203.0.113.7, 10.1.1.1"}


@pytest.fixture(scope="module")
def proxied_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server whose proxies are 127.0.0.1 and 10.0.0.0/8, at an https address."""
    settings = {
        "TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8",
        "ALLOWED_HOSTS": "127.0.0.1",
    }
    with running_server(
        folder, ISSUER_URL="https://portico.test", **settings
    ) as running:
        yield running


def addresses(server: Portico, **headers: str) -> set[str]:
    """The audited addresses of a refused password and a refused token."""
    last = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    sent_headers = {**headers, "x-forwarded-proto": "https"}
    body = {"username": "nobody-at-all", "password": "wrong"}
    assert HTTP.post(
        f"{server.url}/api/token/", json=body, headers=sent_headers
    ).is_error
    bearer = {**sent_headers, "authorization": "Bearer e30.e30.e30"}
    assert HTTP.post(server.mcp_url, json={}, headers=bearer).status_code == 401
    events = AuditEvent.objects.filter(pk__gt=last).values_list("action", "address")
    assert {"user.sign_in_failed", "request.refused"} <= {name for name, _ in events}
    return {address for _, address in events}


def test_the_audit_has_the_real_client_address(
    proxied_server: Portico, server: Portico
) -> None:
    """Django and the MCP endpoint use one function."""
    assert addresses(proxied_server, **WAY) == {"203.0.113.7"}
    assert addresses(server, **WAY) == {"127.0.0.1"}


def test_https_is_accepted_from_the_proxy_only(proxied_server: Portico) -> None:
    """SECURE_SSL_REDIRECT uses the scheme that client_address.py found."""
    page = f"{proxied_server.url}/accounts/login/"
    plain = httpx2.get(page, follow_redirects=False)
    assert plain.status_code == 301 and plain.headers["location"].startswith("https:")
    ended = httpx2.get(page, headers={"x-forwarded-proto": "https"})
    assert ended.status_code == 200
    assert "strict-transport-security" in ended.headers
    chain = httpx2.get(page, headers={"x-forwarded-proto": "https,http"})
    assert chain.status_code == 200
