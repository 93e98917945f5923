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


def test_a_wrong_file_is_reported_and_changes_nothing(carol: Browser) -> None:
    text = upload(carol, USERS, "username,roles\nzoe,Boss\n")
    assert carol.page.status_code == 400 and "line 2, roles" in text
    assert "apply" not in [b[0] for form in carol.forms for b in form.buttons]
    assert "changes nothing" in upload(carol, USERS, "username\nalice\n")
    form = carol.open(USERS).form("file")
    form.fields.pop("file")
    assert "Choose a file" in carol.submit(form).page.text
    ImportDraft.objects.all().delete()
    assert "Nothing to apply" in carol.submit(form, apply="x").page.text
    assert not User.objects.filter(username="zoe").exists()


def test_changes_since_the_dry_run_are_not_overwritten(carol: Browser) -> None:
    make_user("xena", "User")
    upload(carol, USERS, "username,email\nxena,x1@example.org\n")
    User.objects.filter(username="xena").update(email="x2@example.org")
    carol.submit(carol.form("apply"), "apply")
    assert "Nothing was applied" in carol.page.text
    assert User.objects.get(username="xena").email == "x2@example.org"
    User.objects.filter(username="xena").update(email="")


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


def test_a_wrong_policy_is_reported_and_changes_nothing(carol: Browser) -> None:
    assert "this is not a policy file" in upload(carol, POLICY, "{}")
    assert carol.page.status_code == 400
    form = carol.open(POLICY).form("file")
    form.fields.pop("file")
    assert "Choose a file" in carol.submit(form).page.text
    assert "Nothing to apply" in carol.submit(form, apply="x").page.text
    same = json.dumps(export())
    upload(carol, POLICY, same)
    form = carol.form("file")
    form.fields.pop("file")
    assert carol.submit(form, apply="forged").page.status_code == 409


def test_imports_are_for_superusers(server: Portico) -> None:
    """Exports are for users who may view all of the data."""
    ines = make_user("ines")
    ines.is_staff = True
    ines.save()
    with Browser(server.url) as browser:
        browser.sign_in("ines")
        for path in (USERS, POLICY, f"{POLICY}export/"):
            assert browser.open(path).page.status_code == 403
