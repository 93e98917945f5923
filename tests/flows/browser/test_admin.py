"""The admin in a real Chromium: every page in light and dark, wide and narrow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from accounts.models import AuditEvent, User
from accounts.models.oauth import OAuthClient
from mcp_bridge.models import Primitive
from tests.support.chromium import LOOKS, BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.oauth_client import register_client
from tests.support.server import Portico

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]

ADMIN = "/admin/"
LISTS = [
    "accounts/user/",
    "mcp_bridge/primitive/",
    "accounts/issuedtoken/",
    "accounts/oauthclient/",
    "accounts/auditevent/",
    "accounts/signingkey/",
    "usersessions/usersession/",
    "mfa/authenticator/",
    "socialaccount/socialaccount/",
    "axes/accessattempt/",
    "accounts/signinprovider/",
    "accounts/oauthgrant/",
    "accounts/consent/",
]
FORMS = ["accounts/revokedtoken/add/", "accounts/role/add/"]
ROWS = [
    ("accounts/user/", User),
    ("mcp_bridge/primitive/", Primitive),
    ("accounts/oauthclient/", OAuthClient),
    ("accounts/auditevent/", AuditEvent),
]
PAGES = [
    "?range=7d",
    "system/",
    "access/matrix/",
    "access/check/?user=alice",
]


@pytest.fixture
def carol(server: Portico, chromium: Any) -> Any:
    """carol in a wide, light window of the admin."""
    register_client(server, client_name="Window")
    mcp_client(server, "alice").call("rule")
    person = BrowserUser(chromium, "light", 1366)
    person.enter(server.url, "carol")
    yield person
    person.window.close()


def paths() -> list[str]:
    """Every kind of page of the admin."""
    rows = [f"{path}{model.objects.first().pk}/change/" for path, model in ROWS]  # type: ignore[attr-defined]
    return ["", *PAGES, *LISTS, *FORMS, *rows]


def test_every_page_of_the_admin(server: Portico, carol: BrowserUser) -> None:
    """No console error, no CSP report, no axe violation, no overflow."""
    problems: list[str] = []
    for turn, path in enumerate(paths()):
        carol.page.goto(f"{server.url}{ADMIN}{path}")
        shot(carol, path)
        problems += [f"{path}: {line}" for line in carol.layout_problems(turn)]
    assert not problems, "\n".join(problems)


def shot(person: BrowserUser, path: str) -> None:
    """Save screenshots if SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    name = path.strip("/").replace("/", "-").replace("?", "-") or "index"
    for scheme, width in LOOKS if folder else ():
        person.look(scheme, width)
        target = Path(str(folder)) / f"{name}-{scheme}-{width}.png"
        person.page.screenshot(path=str(target))
