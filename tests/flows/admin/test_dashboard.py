"""The dashboard, the system page, clients and keys, as staff see them over HTTP."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from django.conf import settings

from accounts.models import SigningKey
from mcp_bridge.models import Primitive
from tests.support.html_browser import Browser
from tests.support.mcp_client import wire
from tests.support.oauth_client import registered
from tests.support.server import Portico

pytestmark = pytest.mark.usefixtures("cast")
LOG = "/admin/accounts/auditevent/"


@pytest.fixture
def carol(server: Portico, cast: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with Browser(server.url) as browser:
        browser.sign_in("carol")
        yield browser


def test_every_bar_and_name_opens_its_part_of_the_log(
    carol: Browser, server: Portico
) -> None:
    """A link that the log does not understand would lead to all of it."""
    client = wire(server, "bob")
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


def test_what_needs_attention_leads_to_it(carol: Browser, server: Portico) -> None:
    """A definition that changed, and a tool no role covers."""
    assert "No role gives access to: lonely" in carol.open("/admin/").page.text
    look = Primitive.objects.filter(name="look")
    look.update(changed_at="2026-01-01T00:00:00Z")
    page = carol.open("/admin/").page.text
    look.update(changed_at=None)
    assert "Definition changed, look at it: look" in page
    listing = "/admin/mcp_bridge/primitive/?changed_at__isnull=False"
    assert listing in page and carol.open(listing).page.status_code == 200


def test_the_system_page_tells_and_hides(carol: Browser) -> None:
    """The words of doctor; secrets only as set or not."""
    text = carol.open("/admin/system/").page.text
    assert "portico.W102" in text and "Nothing is broken." in text
    assert "RESOURCE_URL" in text and "(set)" in text
    assert settings.SECRET_KEY not in text
    assert settings.KEY_ENCRYPTION_KEY not in text


def test_clients_say_who_they_are(carol: Browser, server: Portico) -> None:
    """Unverified until somebody looks; every redirect as registered."""
    made = registered(server, client_name="<i>Odd</i> client")
    page = carol.open("/admin/accounts/oauthclient/").page.text
    assert "unverified: it has named itself" in page and "<i>Odd" not in page
    assert html.escape(made["redirect_uris"][0]) in page


def test_a_key_shows_how_it_is_published(carol: Browser, server: Portico) -> None:
    """RFC 7517: the public part and nothing else."""
    key = SigningKey.objects.get(state="active")
    page = carol.open(f"/admin/accounts/signingkey/{key.pk}/change/").page.text
    assert key.kid in page and "&quot;kty&quot;" in page and "&quot;d&quot;" not in page
    assert "in use" in carol.open("/admin/accounts/signingkey/").page.text
