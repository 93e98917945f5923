"""The dashboard, the system page, clients and keys, over HTTP."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from django.conf import settings

from accounts.models import SigningKey
from mcp_bridge.models import Primitive
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.oauth_client import register_client
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
LOG = "/admin/accounts/auditevent/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with server.in_process() as browser:
        browser.sign_in("carol")
        yield browser


def test_every_bar_and_name_opens_its_events(carol: Browser, server: Portico) -> None:
    """A filter that the log does not know would show all events."""
    client = mcp_client(server, "bob")
    client.call("whoami"), client.call("rule")
    page = carol.open("/admin/?range=7d").page.text
    links = {html.unescape(url) for url in re.findall(f'href="({LOG}[^"]+)"', page)}
    assert len(links) > 28
    named = [url for url in links if "object=tool+rule" in url or "actor=bob" in url]
    assert len(named) == 2
    for url in [*named, *sorted(links)[:6]]:
        answer = carol.open(url).page
        assert answer.status_code == 200 and "e=1" not in str(answer.url), url
    carol.open(next(url for url in named if "object=" in url))
    assert "rule" in carol.page.text and "whoami" not in carol.page.text


def test_problems_link_to_their_pages(carol: Browser, server: Portico) -> None:
    """Covers a changed definition and a tool that no role covers."""
    assert "No role gives access to: lonely" in carol.open("/admin/").page.text
    look = Primitive.objects.filter(name="look")
    look.update(changed_at="2026-01-01T00:00:00Z")
    page = carol.open("/admin/").page.text
    look.update(changed_at=None)
    assert "Definition changed, needs review: look" in page
    listing = "/admin/definitions/"
    assert listing in page and carol.open(listing).page.status_code == 200


def test_the_system_page_hides_secrets(carol: Browser) -> None:
    """It shows doctor's messages, and secrets only as set or unset."""
    text = carol.open("/admin/system/").page.text
    assert "portico.W102" in text and "No errors found." in text
    assert "RESOURCE_URL" in text and "(set)" in text
    assert settings.SECRET_KEY not in text
    assert settings.KEY_ENCRYPTION_KEY not in text


def test_clients_show_their_verification(carol: Browser, server: Portico) -> None:
    """A client is unverified until approved; every redirect URI is shown."""
    client = register_client(server, client_name="<i>Odd</i> client")
    page = carol.open("/admin/accounts/oauthclient/").page.text
    assert "unverified (self-registered)" in page and "<i>Odd" not in page
    assert html.escape(client["redirect_uris"][0]) in page


def test_a_key_shows_how_it_is_published(carol: Browser, server: Portico) -> None:
    """RFC 7517: only the public part is shown."""
    key = SigningKey.objects.get(state="active")
    page = carol.open(f"/admin/accounts/signingkey/{key.pk}/change/").page.text
    assert key.kid in page and "&quot;kty&quot;" in page and "&quot;d&quot;" not in page
    assert "in use" in carol.open("/admin/accounts/signingkey/").page.text
