"""Users from CSV and policy from JSON through the admin's own pages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from accounts.models import AuditEvent, ImportDraft, User
from mcp_bridge.access.policy_file import export
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
USERS, POLICY = "/admin/users/import/", "/admin/policy/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    ImportDraft.objects.all().delete()
    with Browser(server.url) as browser:
        yield browser.sign_in("carol")


def upload(browser: Browser, path: str, text: str | bytes) -> str:
    """Upload a file on a page; returns the next page."""
    form = browser.open(path).form("file")
    fields = {k: v for k, v in form.fields.items() if k != "file"}
    raw = text.encode() if isinstance(text, str) else text
    headers = {"referer": str(browser.page.url)}
    browser.page = browser.http.post(
        path, data=fields, files={"file": ("file", raw)}, headers=headers
    )
    return browser.page.text


def test_users_are_imported_after_a_dry_run(carol: Browser, server: Portico) -> None:
    """Dry run, apply, progress; the next message of an open client sees it."""
    make_user("xena", "Guest")
    User.objects.filter(username="yuri").delete()
    client = mcp_client(server, "xena")
    assert not client.allowed("look")
    text = upload(carol, USERS, "username,roles\nxena,User\nyuri,User;Guest\n")
    assert "role User" in text and "no end date" in text
    assert not User.objects.filter(username="yuri").exists()
    carol.submit(carol.form("apply"), "apply")
    assert "Done: 2 users were added or changed." in carol.page.text
    assert 'value="2"' in carol.page.text, "the progress"
    assert client.allowed("look")
    event = AuditEvent.objects.filter(action="users.imported").first()
    assert event is not None and event.actor == "carol"
    assert not ImportDraft.objects.filter(owner__username="carol").exists()


def test_a_policy_is_compared_and_applied(carol: Browser, server: Portico) -> None:
    """The page shows the diff first; the next message of an open client sees it."""
    client = mcp_client(server, "alice")
    assert client.allowed("look")
    before = carol.open("/admin/policy/export/").page.text
    assert json.loads(before) == json.loads(json.dumps(export()))
    closed = json.loads(before)
    look = next(p for p in closed["primitives"] if p["name"] == "look")
    look["enabled"] = False
    text = upload(carol, POLICY, json.dumps(closed))
    assert "primitives: tool look" in text and client.allowed("look")
    carol.submit(carol.form("apply"), "apply")
    assert "Done: 1 item was" in carol.page.text and not client.allowed("look")
    upload(carol, POLICY, before)
    carol.submit(carol.form("apply"), "apply")
    assert client.allowed("look")
    assert "No difference" in upload(carol, POLICY, before)
