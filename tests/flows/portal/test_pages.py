"""The portal: connect, my tools and refusals, connected apps, personal tokens."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken
from mcp_bridge.portal.client_setup import TOKEN, snippets
from tests.support.html_browser import Browser
from tests.support.mcp_client import ERAS, HTTP, McpClient, mcp_client
from tests.support.oauth_client import authorize_url, signed_in
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
TOKENS = "/portal/tokens/"


@contextmanager
def signed_in_as(server: Portico, name: str) -> Iterator[Browser]:
    with Browser(server.url) as browser:
        browser.open("/portal/")
        form = browser.form("password")
        browser.submit(form, login=name, password=PASSWORD)
        assert "My tools" in browser.page.text
        yield browser


@pytest.fixture
def alice(server: Portico) -> Iterator[Browser]:
    with signed_in_as(server, "alice") as browser:
        yield browser


def new_token(browser: Browser, **fields: object) -> str:
    """A personal token made in the portal."""
    browser.open(TOKENS)
    form = browser.form("name")
    given: dict[str, Any] = {"name": "laptop", "days": "30", "scopes": ["mcp"]}
    given |= fields
    browser.submit(form, **given)
    assert browser.page.status_code == 200, browser.page.text
    raw = re.search(r'id="new-token"[^>]*>(portico_pat_[^<]+)<', browser.page.text)
    assert raw is not None
    return raw[1]


@pytest.mark.parametrize(
    "path", ["/portal/", "/portal/connect/", "/portal/apps/", TOKENS]
)
def test_the_portal_requires_sign_in(server: Portico, path: str) -> None:
    """It runs only its own script."""
    answer = HTTP.get(f"{server.url}{path}")
    assert answer.headers["location"].startswith("/accounts/login/")


@pytest.mark.spec("MCP SEC Token Theft: stored hashed")
@pytest.mark.parametrize("era", ERAS)
def test_a_personal_token_works_until_it_is_revoked(
    server: Portico, alice: Browser, era: str
) -> None:
    """It is stored hashed, shown once, and its last use is noted."""
    raw = new_token(alice)
    client = McpClient(server, raw, era).open()
    assert client.text("look") == "alice looks at shelf"
    assert client.call("erase").status_code == 403
    rows = list(IssuedToken.objects.filter(kind="personal").values())
    assert raw not in json.dumps(rows, default=str)
    end = monotonic() + 30  # the last use is written asynchronously
    while "127.0.0.1" not in alice.open(TOKENS).page.text and monotonic() < end:
        pass
    assert raw not in alice.page.text and "127.0.0.1" in alice.page.text
    row = IssuedToken.objects.filter(kind="personal", user__username="alice").first()
    assert row is not None
    form = next(
        f for f in alice.forms if ("revoke", row.jti, "Revoke token") in f.buttons
    )
    alice.submit(form, revoke=row.jti)
    assert client.call("look").status_code == 401


def test_a_personal_token_has_a_subset_of_rights_and_an_end(
    server: Portico, alice: Browser
) -> None:
    """It has a subset of the user's scopes and needs an end."""
    narrow = new_token(alice, scopes=["User.Read"])
    assert McpClient(server, narrow).allowed("look")
    assert McpClient(server, narrow).call("erase").status_code == 403
    refused: tuple[dict[str, Any], ...] = (
        {"scopes": ["Admin.Write"]},
        {"scopes": []},
        {"days": "0"},
        {"days": "9999"},
        {"days": ""},
        {"name": ""},
        {"name": "a\x00b"},
    )
    for wrong in refused:
        alice.open(TOKENS)
        fields: dict[str, Any] = {"name": "x", "days": "3", "scopes": ["mcp"]} | wrong
        alice.submit(alice.form("name"), **fields)
        assert alice.page.status_code == 400 and "errorlist" in alice.page.text
    past = timezone.now() - timedelta(seconds=1)
    IssuedToken.objects.filter(kind="personal").update(expires_at=past)
    assert McpClient(server, narrow).call("look").status_code == 401
    assert McpClient(server, "portico_pat_unknown").call("look").status_code == 401


def test_a_user_cannot_revoke_anothers_token(server: Portico, alice: Browser) -> None:
    make_user("bob", "Guest", "User")
    tokens = server.issued("bob")
    alice.open(TOKENS)
    alice.submit(alice.form("name"), revoke=tokens.row.jti)
    assert McpClient(server, tokens.access).allowed("look")


def test_a_connected_app_can_be_revoked(server: Portico, alice: Browser) -> None:
    """The app is refused at its next message and has to ask for consent again."""
    client_id, answer = signed_in(server)
    client = McpClient(server, answer["access_token"])
    assert client.allowed("look")
    alice.open("/portal/apps/")
    assert "Tester" in alice.page.text and "self-registered" in alice.page.text
    form = next(f for f in alice.forms if "revoke" in [b[0] for b in f.buttons])
    alice.submit(form, "revoke")
    assert "Access and " in alice.page.text
    assert client.call("look").status_code == 401
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(authorize_url(server, client_id)[0])
        assert any("asks for access" in page for page in visitor.seen)
    assert AuditEvent.objects.filter(action="consent.withdrawn").exists()


def test_the_connect_page_turns_to_connected(server: Portico) -> None:
    """For somebody who has not called before."""
    make_user("nora", "User")
    nora = Browser(server.url)
    nora.sign_in("nora")
    page = nora.open("/portal/connect/").page
    assert server.mcp_url in page.text and "Waiting for your client" in page.text
    since = page.text.split('data-since="')[1].split('"')[0]
    past = AuditEvent.objects.filter(actor="nora").count()
    status = f"/portal/connect/status?since={int(since) + 1}"
    for odd in ("", "x", "-1", "9" * 30):
        answer = nora.http.get(f"/portal/connect/status?since={odd}")
        assert answer.status_code == 200
    mcp_client(server, "nora").call("look")
    assert AuditEvent.objects.filter(actor="nora").count() > past
    status = f"/portal/connect/status?since={since}"
    assert nora.http.get(status).json() == {"connected": True, "what": "tool look"}
    assert "(tool look)" in nora.open("/portal/connect/").page.text
    nora.http.close()


def test_every_snippet_names_the_real_address() -> None:
    url = "https://portico.example/mcp"
    found = {s.slug: s for s in snippets(url)}
    assert len(found) == 14 and list(found)[-1] == "curl"
    for snippet in found.values():
        assert snippet.slug == "chatgpt" or url in snippet.with_token
        assert snippet.slug == "curl" or url in snippet.sign_in
    for slug in ("vscode", "cursor"):
        assert json.loads(found[slug].sign_in) and json.loads(found[slug].with_token)
    assert found["cursor"].link.startswith("cursor://anysphere.cursor-deeplink/")


@pytest.mark.parametrize("processes", ["server", "workers"])
def test_the_curl_command_works_unchanged(request: Any, processes: str) -> None:
    running: Portico = request.getfixturevalue(processes)
    line = snippets(running.mcp_url)[-1].with_token
    typed = shlex.split(line.replace(TOKEN, running.token("alice")))
    done = subprocess.run([*typed, "-s"], capture_output=True, check=True, timeout=20)
    names = {tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]}
    assert {"look", "whoami"} <= names


def test_refusals_are_explained_without_revealing_secrets(server: Portico) -> None:
    """The page names the reason and a contact; hidden primitives stay unknown."""
    make_user("petra", "User")
    client = mcp_client(server, "petra")
    for tool in ("rule", "nope", "erase"):
        client.call(tool)
    with signed_in_as(server, "petra") as petra:
        text = petra.page.text
    assert "tool look" not in text and ">look<" in text
    assert text.count("Your roles do not include this") >= 2
    assert "The token lacks a required scope" in text
