"""Grants, requests, tokens, audit, imports in a real Chromium, by permission."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from accounts.audit.record import record
from accounts.models import AccessRequest, AuditSeal, IssuedToken, Role, User
from tests.support.chromium import LOOKS, BrowserUser
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


def test_the_pages_of_delegation_open(
    server: Portico, chromium: Any, sample_rows: dict[str, int]
) -> None:
    """No console error, no CSP report, no axe violation, no overflow."""
    window, problems = BrowserUser(chromium, "light", 1366), []
    window.enter(server.url, "carol")
    for turn, page in enumerate(PAGES):
        path = page.format(**sample_rows)
        assert window.page.goto(f"{server.url}/admin/{path}").status == 200, path
        shot(window, f"carol-{page.split('?')[0]}")
        problems += [f"{path}: {line}" for line in window.layout_problems(turn)]
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


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
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
