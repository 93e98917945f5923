"""The access matrix and the access check, through their real forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accounts.models import AuditEvent, Role, Scope
from mcp_bridge.models import Primitive
from tests.support.html_browser import Browser
from tests.support.mcp_client import McpClient, mcp_client
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
ACCESS = "access"
MATRIX, CHECK = "/admin/access/matrix/", "/admin/access/check/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with Browser(server.url) as browser:
        browser.sign_in("carol")
        yield browser


@pytest.fixture
def client(server: Portico) -> McpClient:
    """bob's client, connected before the changes."""
    connected = mcp_client(server, "bob")
    assert not connected.allowed("lonely")
    return connected


ALLOWED = '<span class="badge good">allowed</span>'


def key(role: str, tool: str) -> str:
    """A cell's name in the form."""
    pair = Role.objects.get(name=role), Primitive.objects.get(name=tool)
    return f"{pair[0].pk}-{pair[1].pk}"


def ticks(browser: Browser) -> list[str]:
    found = browser.form("version").fields.get("on", [])
    return [found] if isinstance(found, str) else list(found)


def save_review(browser: Browser) -> str:
    """The text after pressing save on the review page."""
    assert "Nothing is saved yet" in browser.page.text
    browser.submit(browser.form("changes"))
    return browser.page.text


def test_a_changed_cell_applies_to_the_next_message(
    carol: Browser, client: McpClient
) -> None:
    """Select, review, save, and undo."""
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), on=[*ticks(carol), key("Guest", "lonely")])
    assert "Guest" in carol.page.text and "tool:lonely" in carol.page.text
    assert not client.allowed("lonely"), "a review changes nothing"
    assert "1 change saved" in save_review(carol)
    assert client.allowed("lonely") and "lonely" in client.tools()
    assert key("Guest", "lonely") in ticks(carol)
    carol.submit(carol.form("version"), on=[])
    assert "1 change saved" in save_review(carol)
    assert "Unknown tool: lonely" in client.call("lonely").text
    events = AuditEvent.objects.filter(action__startswith="role.scope_")[:2]
    assert [(e.actor, e.action, e.object) for e in events] == [
        ("carol", "role.scope_taken", "Guest"),
        ("carol", "role.scope_given", "Guest"),
    ]


def test_whole_columns_and_rows_change_at_once(
    carol: Browser, client: McpClient
) -> None:
    """All rows that match the filter change, on other pages too."""
    guest = Role.objects.get(name="Guest")
    lonely = Primitive.objects.get(name="lonely")
    carol.open(f"{MATRIX}?q=l&kind=tool")
    carol.submit(carol.form("version"), **{f"column-{guest.pk}": "on"})
    assert "gains" in carol.page.text
    save_review(carol)
    assert client.allowed("lonely") and client.allowed("look")
    carol.open(f"{MATRIX}?q=l&kind=tool")
    carol.submit(carol.form("version"), **{f"column-{guest.pk}": "off"})
    save_review(carol)
    assert not client.allowed("lonely") and not client.allowed("look")
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), **{f"row-{lonely.pk}": "on"})
    save_review(carol)
    assert client.allowed("lonely")
    carol.open(f"{MATRIX}?q=lonely")
    carol.submit(carol.form("version"), **{f"row-{lonely.pk}": "off"})
    save_review(carol)
    assert not client.allowed("lonely")


def test_access_by_a_shared_scope_is_taken_from_one_role(
    carol: Browser, server: Portico
) -> None:
    """The other roles keep the tool, by its own scope."""
    role, admin = Role.objects.get(name="User"), Role.objects.get(name="Admin")
    look, own = Primitive.objects.get(name="look"), Scope.objects.get(name="tool:look")
    alice, boss = mcp_client(server, "alice"), mcp_client(server, "carol")
    before = list(look.required_scopes.all())
    carol.open(f"{MATRIX}?q=look&role={role.pk}")
    assert "through User.Read" in carol.page.text
    carol.submit(carol.form("version"), on=[])
    assert "It no longer requires User.Read" in carol.page.text
    save_review(carol)
    assert not alice.allowed("look") and boss.allowed("look")
    look.required_scopes.set(before)
    admin.scopes.remove(own)
    assert alice.allowed("look") and boss.allowed("look")


def test_the_check_and_the_decision_agree(carol: Browser, server: Portico) -> None:
    """Compares every tool for every test user."""
    for name in ("alice", "bob", "carol"):
        client = mcp_client(server, name)
        for tool in ("look", "rule", "erase", "lonely", "whoami"):
            pk = Primitive.objects.get(name=tool).pk
            page = carol.open(f"{CHECK}?user={name}&primitive={pk}").page.text
            assert (ALLOWED in page) == client.allowed(tool), (name, tool)
