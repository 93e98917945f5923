"""Tokens limited by network and idle time; a change applies to the next message."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.core.management import CommandError, call_command
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, OAuthClient, Role, User
from accounts.models.oauth import DEVICE_GRANT
from accounts.oauth.token import GRANTS
from accounts.tokens.issue import issue_tokens
from tests.support.html_browser import Browser
from tests.support.mcp_client import HTTP, McpClient, message_in
from tests.support.oauth_client import (
    BACK,
    command_line_client,
    consented_code,
    error_of,
    signed_in,
)
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD, make_user
from tests.support.visitor import Visitor

pytestmark = [
    pytest.mark.once,
    pytest.mark.usefixtures("default_users", "without_networks"),
]
OFFICE, HOME = "192.0.2.7", "203.0.113.7"
NET = "192.0.2.0/24 2001:db8::/32"


@pytest.fixture(scope="module")
def proxied_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server that trusts this test's X-Forwarded-For."""
    with running_server(folder, TRUSTED_PROXIES="127.0.0.1") as running:
        yield running


@pytest.fixture
def without_networks(rows: None) -> Iterator[None]:
    """Removes network limits of roles before and after the test."""
    Role.objects.update(networks="")
    yield
    Role.objects.update(networks="")


def look(server: Portico, raw: str, address: str) -> httpx2.Response:
    """Call a tool of role User from an address."""
    client = McpClient(server, raw)
    return client.post(
        "tools/call", {"name": "look", "arguments": {}}, {"x-forwarded-for": address}
    )


def tool_answered(response: httpx2.Response) -> bool:
    if response.status_code != 200:
        return False
    answer = message_in(response)
    return "result" in answer and not answer["result"].get("isError", False)


def use_is_stored(rows: QuerySet[IssuedToken]) -> bool:
    """Whether this use is stored: uses are written in batches."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if rows.exclude(last_used_at=None).exists():
            return True
    return False


def test_a_token_is_accepted_from_its_networks_only(proxied_server: Portico) -> None:
    """The 401 names its reason; cached tokens are checked too."""
    raw = proxied_server.token("alice", networks=NET)
    for _ in range(2):
        assert tool_answered(look(proxied_server, raw, OFFICE))
        assert tool_answered(look(proxied_server, raw, "2001:db8::5"))
        error_of = look(proxied_server, raw, HOME)
        assert error_of.status_code == 401
        assert 'error="invalid_token"' in error_of.headers["www-authenticate"]
    event = AuditEvent.objects.filter(reason="wrong_network", address=HOME).first()
    assert event is not None and event.token_id
    IssuedToken.objects.filter(jti=event.token_id).update(networks="")
    assert tool_answered(look(proxied_server, raw, HOME))


def test_a_clients_networks_apply_to_tokens_and_calls(proxied_server: Portico) -> None:
    """A change in the admin applies to the next message."""
    client_id, pair = signed_in(proxied_server)
    client = OAuthClient.objects.get(client_id=client_id)
    assert tool_answered(look(proxied_server, pair["access_token"], HOME))
    with Browser(proxied_server.url) as carol:
        carol.sign_in("carol")
        page = f"/admin/accounts/oauthclient/{client.pk}/change/"
        carol.save(page, networks="192.0.2.0/24", client_jwks="{}")
    assert look(proxied_server, pair["access_token"], HOME).status_code == 401
    assert tool_answered(look(proxied_server, pair["access_token"], OFFICE))
    form = {"grant_type": "refresh_token", "client_id": client_id}
    form["refresh_token"] = pair["refresh_token"]
    url = f"{proxied_server.url}/oauth/token"
    error_of = HTTP.post(url, data=form, headers={"x-forwarded-for": HOME})
    assert (error_of.status_code, error_of.json()["error"]) == (
        400,
        "unauthorized_client",
    )
    good = HTTP.post(url, data=form, headers={"x-forwarded-for": OFFICE})
    assert good.status_code == 200


def grant_form(server: Portico, grant: str, basic: tuple[str, str]) -> dict[str, str]:
    """The form of this grant for this client."""
    url = f"{server.url}/oauth"
    if grant in ("authorization_code", "refresh_token"):
        code, raw = consented_code(server, basic[0])
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
        form["redirect_uri"] = BACK
        if grant == "authorization_code":
            return form
        pair = HTTP.post(f"{url}/token", data=form, auth=basic).json()
        return {"grant_type": grant, "refresh_token": pair["refresh_token"]}
    if grant == "client_credentials":
        return {"grant_type": grant, "scope": "mcp"}
    assert grant == DEVICE_GRANT, "a grant that this test does not know"
    device = HTTP.post(f"{url}/device", data={"scope": "mcp"}, auth=basic).json()
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(device["verification_uri_complete"])
    return {"grant_type": grant, "device_code": device["device_code"]}


@pytest.mark.parametrize("grant", GRANTS)
def test_a_client_gets_tokens_from_its_networks_only(
    proxied_server: Portico, grant: str
) -> None:
    """Covers every grant; an attempt from elsewhere does not use up a code."""
    make_user("robot", "User")
    about = ("--redirect-uri", "http://127.0.0.1/callback", "--device")
    known = command_line_client("bound", *about, "--service-account", "robot")
    basic = (known["client_id"], known["client_secret"])
    form = grant_form(proxied_server, grant, basic)
    OAuthClient.objects.filter(client_id=basic[0]).update(networks=NET)
    for address in (HOME, "198.51.100.1", "2001:db9::1"):
        for endpoint in ("token", "device", "revoke", "introspect"):
            answer = HTTP.post(
                f"{proxied_server.url}/oauth/{endpoint}",
                data=form,
                auth=basic,
                headers={"x-forwarded-for": address},
            )
            assert error_of(answer) == (400, "unauthorized_client"), endpoint
    url, office = f"{proxied_server.url}/oauth/token", {"x-forwarded-for": OFFICE}
    good = HTTP.post(url, data=form, auth=basic, headers=office)
    assert good.status_code == 200, good.text
    assert tool_answered(look(proxied_server, good.json()["access_token"], OFFICE))
    assert look(proxied_server, good.json()["access_token"], HOME).status_code == 401


def test_a_role_applies_in_its_networks_only(proxied_server: Portico) -> None:
    """Elsewhere its primitives do not exist; inside they work at once."""
    raw = proxied_server.token("alice")
    assert tool_answered(look(proxied_server, raw, HOME))
    Role.objects.filter(name="User").update(networks=NET)
    away = look(proxied_server, raw, HOME)
    assert not tool_answered(away) and away.status_code in (200, 400, 404), away.text
    assert tool_answered(look(proxied_server, raw, OFFICE))
    Role.objects.filter(name="User").update(networks="")
    assert tool_answered(look(proxied_server, raw, HOME))


def test_an_idle_token_expires(
    proxied_server: Portico, rows: None, folder: Path
) -> None:
    """The limit is the client's own, or else the setting."""
    client = command_line_client("Idle", "--redirect-uri", "https://idle.example/cb")[
        "client_id"
    ]
    raw = proxied_server.token("alice", client_id=client)
    row = IssuedToken.objects.filter(client_id=client, kind="access")
    long_ago = timezone.now() - timedelta(minutes=10)
    row.update(issued_at=long_ago, last_used_at=None)
    assert tool_answered(look(proxied_server, raw, HOME))
    assert use_is_stored(row), "its use is written down within a second"
    OAuthClient.objects.filter(client_id=client).update(max_idle=300)
    assert tool_answered(look(proxied_server, raw, HOME)), "used a moment ago"
    row.update(last_used_at=long_ago, networks="0.0.0.0/0")
    assert look(proxied_server, raw, HOME).status_code == 401
    assert AuditEvent.objects.filter(reason="idle").exists()
    with running_server(folder, TOKEN_MAX_IDLE="300") as strict:
        other = strict.token("alice")
        mine = IssuedToken.objects.order_by("-pk").filter(kind="access")[:1]
        IssuedToken.objects.filter(pk__in=[mine[0].pk]).update(issued_at=long_ago)
        assert look(strict, other, HOME).status_code == 401


def test_users_and_commands_limit_tokens_to_networks(proxied_server: Portico) -> None:
    """Covers the portal and the command line; the error names an invalid network."""
    with Browser(proxied_server.url) as alice:
        alice.open("/accounts/login/?next=/portal/tokens/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        form: Any = alice.form("networks")
        alice.submit(form, name="bound", networks="everywhere")
        assert "everywhere is not an IP address or a network" in alice.page.text
        alice.submit(alice.form("networks"), name="bound", networks="192.0.2.0/24")
        start = alice.page.text.index("portico_pat_")
        raw = alice.page.text[start:].split("<")[0]
        assert "allowed IP addresses 192.0.2.0/24" in alice.page.text
    assert tool_answered(look(proxied_server, raw, OFFICE))
    assert look(proxied_server, raw, HOME).status_code == 401
    out = io.StringIO()
    with proxied_server.settings():
        call_command("issue_token", "alice", "--network", "192.0.2.7", stdout=out)
    assert look(proxied_server, out.getvalue().strip(), HOME).status_code == 401
    with pytest.raises(CommandError, match="is not an IP address"):
        call_command("issue_token", "alice", "--network", "here")


def test_a_refresh_token_keeps_its_networks(proxied_server: Portico) -> None:
    """Its successors keep them and can be used from there only."""
    user = User.objects.get(username="alice")
    with proxied_server.settings():
        pair = issue_tokens(user, issued_via="password", networks="192.0.2.0/24")
    url, body = f"{proxied_server.url}/api/token/refresh/", {"refresh": pair.refresh}
    assert HTTP.post(url, json=body, headers={"x-forwarded-for": HOME}).is_error
    good = HTTP.post(url, json=body, headers={"x-forwarded-for": OFFICE})
    assert good.status_code == 200
    assert look(proxied_server, good.json()["access"], HOME).status_code == 401
    body = {"refresh": good.json()["refresh"]}
    assert HTTP.post(url, json=body, headers={"x-forwarded-for": HOME}).is_error
