"""Grants, requests, tokens, audit, imports in a real Chromium, by permission."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.audit.record import record
from accounts.models import AccessRequest, AuditSeal, IssuedToken, Role, User
from tests.support.chromium import BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
OPEN = "accounts/accessrequest/{request}/change/"
PAGES = [
    "accounts/roleassignment/",
    "accounts/roleassignment/add/",
    "accounts/accessrequest/",
    OPEN,
    "accounts/issuedtoken/?use=never",
    "accounts/issuedtoken/{token}/change/",
    "accounts/auditevent/?action=test.changed",
    "accounts/auditevent/{event}/change/",
    "accounts/auditseal/",
    "users/import/",
    "policy/",
]
PAGE_LOOKS = [("light", 1366), ("dark", 390)]
STAFF = {
    "carol": ("", set()),
    "audrey": (
        "Auditors",
        {"accounts/roleassignment/add/", "users/import/", "policy/"},
    ),
    "henry": (
        "Helpdesk",
        {
            "accounts/roleassignment/add/",
            "accounts/accessrequest/",
            OPEN,
            "accounts/auditseal/",
            "users/import/",
            "policy/",
        },
    ),
}
"""User -> their group, and the pages they may not open."""


@pytest.fixture
def sample_rows(server: Portico, default_users: None) -> dict[str, int]:
    mcp_client(server, "alice").call("look")
    ask = AccessRequest.objects.all()
    bob, role = User.objects.get(username="bob"), Role.objects.get(name="User")
    request = ask.open().filter(user=bob).first() or ask.ask(bob, role, reason="why")
    changes = {"enabled": [True, False], "scopes": [["a"], []]}
    event = record("test.changed", actor="carol", object="tool look", changes=changes)
    AuditSeal.objects.all().seal(most=3)
    token = IssuedToken.objects.filter(username="alice", kind="access").latest("id")
    return {"request": request.pk, "token": token.pk, "event": event.pk}


def shot(window: BrowserUser, name: str) -> None:
    """Save a screenshot if SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        path = Path(folder) / f"{name.strip('/').replace('/', '-')}.png"
        window.page.screenshot(path=str(path), full_page=True)


@pytest.mark.parametrize("who", STAFF)
def test_pages_open_for_users_with_permission(
    server: Portico, chromium: Any, sample_rows: dict[str, int], who: str
) -> None:
    """No console error, no CSP report, no axe violation; other pages are refused."""
    group, forbidden = STAFF[who]
    somebody = make_user(who, *(["Admin"] if who == "carol" else []))
    somebody.is_staff = True
    somebody.save()
    somebody.groups.set(Group.objects.filter(name=group))
    window, problems = BrowserUser(chromium, "light", 1366), []
    window.enter(server.url, who)
    for page in PAGES:
        path = page.format(**sample_rows)
        answer = window.page.goto(f"{server.url}/admin/{path}")
        assert (answer.status == 403) == (page in forbidden), f"{who} {path}"
        if answer.status == 403:
            window.errors.clear()
            continue
        for scheme, width in PAGE_LOOKS if who == "carol" else PAGE_LOOKS[:1]:
            window.look(scheme, width)
            shot(window, f"{who}-{page.split('?')[0]}-{scheme}-{width}")
            where = f"{who} {path} {scheme} {width}"
            unfit = window.unfit() if who == "carol" else []
            problems += [f"{where}: {line}" for line in unfit]
            problems += [] if window.fits() else [f"{where}: sticks out"]
        window.look("light", 1366)
        problems += [f"{who} {path}: {error}" for error in window.errors]
        window.errors.clear()
    window.window.close()
    assert not problems, "\n".join(problems)


def test_revoking_in_the_browser_asks_first(
    server: Portico, chromium: Any, default_users: None
) -> None:
    """The page states counts and effect; the next message sees the change."""
    make_user("yann", "User")
    client, window = mcp_client(server, "yann"), BrowserUser(chromium, "light", 1366)
    window.enter(server.url, "carol")
    window.page.goto(f"{server.url}/admin/accounts/issuedtoken/?username=yann")
    window.page.check("#action-toggle")
    window.page.select_option("select[name=action]", "revoke")
    window.page.click("button[name=index], #changelist .actions [type=submit]")
    window.page.wait_for_selector("text=(1 client)")
    shot(window, "confirm-light-1366")
    assert client.allowed("look") and window.unfit() == []
    window.page.click("input[value='Revoke tokens']")
    window.page.wait_for_selector("text=revoked.")
    assert client.call("look").status_code == 401
    assert window.errors == []
    window.window.close()


@pytest.mark.parametrize(("scheme", "width"), PAGE_LOOKS)
def test_bob_asks_for_access(
    server: Portico, chromium: Any, default_users: None, scheme: str, width: int
) -> None:
    """bob asks in the portal; the admin refuses him."""
    AccessRequest.objects.filter(user__username="bob").delete()
    window = BrowserUser(chromium, scheme, width)
    window.page.goto(f"{server.url}/portal/access/")
    window.sign_in("bob")
    window.page.select_option("select[name=role]", label="User")
    window.page.fill("input[name=reason]", "the audit of May")
    window.page.click("main button:has-text('Request role')")
    window.page.wait_for_selector("text=User: waiting for approval")
    shot(window, f"portal-access-{scheme}-{width}")
    assert window.fits() and window.unfit() == [] and window.errors == []
    window.page.click("text=Withdraw request")
    window.page.wait_for_selector("text=User: withdrawn")
    window.page.goto(f"{server.url}/admin/accounts/roleassignment/")
    assert "/admin/login/" in window.page.url or "login" in window.page.url
    window.window.close()
