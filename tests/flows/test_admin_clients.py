"""OAuth clients in the admin: add, approve, block, rotate, revoke."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accounts.models import Consent, OAuthClient, User
from tests.flows.browser import Browser
from tests.flows.oauth import refresh, registered, signed_in
from tests.flows.server import Portico
from tests.flows.wire import HTTP, Wire

pytestmark = pytest.mark.usefixtures("cast")
CLIENTS = "/admin/accounts/oauthclient/"


@pytest.fixture
def carol(server: Portico, cast: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with Browser(server.url) as browser:
        yield browser.sign_in("carol")


def secret_on(page: str) -> str:
    """The secret that a page shows."""
    return page.split("shown this once: ")[1].split("<")[0].strip()


@pytest.mark.spec("MCP REG: pre-registration")
def test_a_client_is_added_and_its_secret_rotated(
    server: Portico, carol: Browser
) -> None:
    """Registration by the admin; a secret is shown once."""
    with pytest.raises(AssertionError):
        carol.save(f"{CLIENTS}add/", name="x", redirect_uris="http://evil.example")
    assert "use https" in carol.page.text and 'value="x"' in carol.page.text
    given = {
        "name": "Reports",
        "redirect_uris": "https://reports.example/cb",
        "token_endpoint_auth_method": "client_secret_basic",
    }
    carol.save(f"{CLIENTS}add/", **given)
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
    """ours: blocked means now, tokens included."""
    client_id, answer = signed_in(server)
    client = OAuthClient.objects.get(client_id=client_id)
    assert not client.verified
    carol.act(CLIENTS, "approve", client.pk)
    client.refresh_from_db()
    assert client.verified
    carol.act(CLIENTS, "block", client.pk)
    assert Wire(server, answer["access_token"]).call("look").status_code == 401
    refused = refresh(server, client_id, answer["refresh_token"])
    assert refused.json()["error"] == "invalid_client"
    carol.act(CLIENTS, "unblock", client.pk)
    again = refresh(server, client_id, answer["refresh_token"])
    assert again.json()["error"] == "invalid_grant", "the tokens stay ended"


def test_consents_and_codes_can_be_looked_at(server: Portico, carol: Browser) -> None:
    """ours: and changed by nobody."""
    signed_in(server)
    registered(server)
    key = Consent.objects.order_by("-pk")[0].pk
    for path in ("consent", "oauthgrant", "documenthost", "oauthclient"):
        page = carol.open(f"/admin/accounts/{path}/").page
        assert page.status_code == 200
    page = carol.open(f"/admin/accounts/consent/{key}/change/").page
    assert page.status_code == 200 and 'name="_save"' not in page.text


def test_a_client_may_act_as_a_service_account_only(carol: Browser) -> None:
    """ours: people are not on offer, however many there are."""
    machine = User.objects.create(username="machine", is_service_account=True)
    page = carol.open("/admin/accounts/oauthclient/add/").page.text
    assert ">machine</option>" in page and ">alice</option>" not in page
    machine.delete()
