"""Clients that are URLs, at a server that can look up no name of the internet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, DocumentCopy, OAuthClient
from accounts.oauth.clients.metadata_documents import EVENT_SECONDS
from tests.support.mcp_client import McpClient
from tests.support.oauth_client import authorize_url, redeem, refresh
from tests.support.server import Portico, running_server
from tests.support.visitor import Visitor, callback

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
CLIENTS = {
    "Claude Code": (
        "https://claude.ai/oauth/claude-code-client-metadata",
        "http://localhost:53999/callback",
    ),
    "Codex": (
        "https://chatgpt.com/oauth/codex/client.json",
        "http://127.0.0.1:53998/callback",
    ),
    "Goose": (
        "https://goose-docs.ai/oauth/client-metadata.json",
        "http://127.0.0.1:53997/oauth_callback",
    ),
}
"""Client -> (client id, redirect URI), as these programs send them."""


@pytest.fixture(scope="module")
def offline(rows: None, folder: Path) -> Iterator[Portico]:
    """Default settings; the test app makes the resolver fail."""
    apps = "tests.apps.no_internet,tests.apps.shop,tests.apps.wait_guard"
    with running_server(folder, EXTRA_APPS=apps) as running:
        yield running


@pytest.fixture(autouse=True)
def new_clients(rows: None) -> None:
    OAuthClient.objects.exclude(document_copy=None).delete()
    DocumentCopy.objects.update(enabled=True)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_well_known_client_signs_in(offline: Portico, name: str) -> None:
    """Sign-in, consent, tokens, a tool, and a refresh where the client has it."""
    client_id, back = CLIENTS[name]
    # A real program may have had the event of this minute.
    start = timezone.now() - timedelta(seconds=EVENT_SECONDS)
    url, raw = authorize_url(offline, client_id, redirect_uri=back)
    with Visitor(offline.url, "alice") as visitor:
        code = callback(visitor.visit(url))["code"]
    assert any(f"“{name}”" in unescape(page) for page in visitor.seen)
    answer = redeem(offline, client_id, code, raw, redirect_uri=back)
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    assert McpClient(offline, tokens["access_token"]).allowed("look")
    if "refresh_token" in tokens:
        again = refresh(offline, client_id, tokens["refresh_token"])
        assert again.status_code == 200, again.text
        tokens = again.json()
    events = AuditEvent.objects.filter(client_id=client_id, at__gt=start)
    event = events.filter(action="client.document_failed").first()
    assert event is not None
    assert event.reason.startswith("unresolved: ") and event.via.startswith("copy of ")
    rows = DocumentCopy.objects.filter(client_id=client_id)
    assert rows.get().last_used_at is not None
    rows.switch_off(actor="carol", reason="document copy switched off")
    client = McpClient(offline, tokens["access_token"])
    assert client.post("ping").status_code == 401
    with Visitor(offline.url, "alice") as visitor:
        visitor.visit(url)
    assert "The copy of the client's document is switched off." in unescape(
        visitor.page.text
    )


def test_an_unknown_client_is_explained(offline: Portico) -> None:
    url, _raw = authorize_url(offline, "https://unknown.example/client.json")
    with Visitor(offline.url, "alice") as visitor:
        visitor.visit(url)
    text = unescape(visitor.page.text)
    assert visitor.page.status_code == 400
    assert "This server cannot look up the name unknown.example." in text
    assert "paste the document in the admin" in text
