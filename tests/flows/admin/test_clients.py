"""OAuth clients in the admin: add, approve, block, rotate, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from accounts.models import DocumentHost, OAuthClient
from tests.support.html_browser import Browser
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import refresh, register_client, signed_in
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
CLIENTS = "/admin/accounts/oauthclient/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with server.in_process() as browser:
        yield browser.sign_in("carol")


def secret_on(page: str) -> str:
    """The secret that a page shows."""
    return page.split("shown only once: ")[1].split("<")[0].strip()


@pytest.mark.spec("MCP REG: pre-registration")
def test_a_client_is_added_and_its_secret_rotated(
    server: Portico, carol: Browser
) -> None:
    """The admin registers the client and shows the secret once."""
    with pytest.raises(AssertionError):
        carol.save(f"{CLIENTS}add/", name="x", redirect_uris="http://evil.example")
    assert "use https" in carol.page.text and 'value="x"' in carol.page.text
    fields = {
        "name": "Reports",
        "redirect_uris": "https://reports.example/cb",
        "token_endpoint_auth_method": "client_secret_basic",
    }
    carol.save(f"{CLIENTS}add/", **fields)
    first = secret_on(carol.page.text)
    client = OAuthClient.objects.get(name="Reports")
    assert client.verified and first not in client.client_secret
    url = f"{server.url}/oauth/introspect"
    body = {"token": "nonsense"}
    assert HTTP.post(url, data=body, auth=(client.client_id, first)).is_success
    carol.act(CLIENTS, "rotate_secret", client.pk)
    second = secret_on(carol.page.text)
    old = HTTP.post(url, data=body, auth=(client.client_id, first))
    assert old.status_code == 401
    assert HTTP.post(url, data=body, auth=(client.client_id, second)).is_success
    assert second not in carol.open(f"{CLIENTS}{client.pk}/change/").page.text


def test_a_client_is_approved_and_blocked(server: Portico, carol: Browser) -> None:
    client_id, answer = signed_in(server)
    client = OAuthClient.objects.get(client_id=client_id)
    assert not client.verified
    carol.act(CLIENTS, "approve", client.pk)
    client.refresh_from_db()
    assert client.verified
    carol.act(CLIENTS, "block", client.pk)
    assert McpClient(server, answer["access_token"]).call("look").status_code == 401
    refused = refresh(server, client_id, answer["refresh_token"])
    assert refused.json()["error"] == "invalid_client"
    carol.act(CLIENTS, "unblock", client.pk)
    again = refresh(server, client_id, answer["refresh_token"])
    assert again.json()["error"] == "invalid_grant", "the tokens stay ended"


HOSTS = "/admin/accounts/documenthost/"


@pytest.mark.parametrize("place", ["EVIL.example."])
def test_blocking_a_host_ends_the_tokens_of_its_clients(
    server: Portico, carol: Browser, place: str
) -> None:
    """CIMD 6.8: from the next message on, in every spelling of the host."""
    client_id = f"https://{place}/{uuid4()}.json"
    known = register_client(server)["client_id"]
    cimd = OAuthClient.RegistrationSource.CIMD
    rows = OAuthClient.objects.filter(client_id=known)
    rows.update(client_id=client_id, registration_source=cimd)
    answer = signed_in(server, client_id=client_id)[1]
    assert McpClient(server, answer["access_token"]).allowed("look")
    for odd in ("https://evil.example", "evil.example:443", "*.evil.example", "a b"):
        with pytest.raises(AssertionError):
            carol.save(f"{HOSTS}add/", host=odd)
        assert "is not a host name" in carol.page.text
    carol.save(f"{HOSTS}add/", host="Evil.Example.", trusted=None)
    assert McpClient(server, answer["access_token"]).post("ping").status_code == 401
    again = refresh(server, client_id, answer["refresh_token"])
    assert again.json()["error"] == "invalid_client"
    assert DocumentHost.objects.filter(host="evil.example", trusted=False).exists()
    DocumentHost.objects.all().delete()
