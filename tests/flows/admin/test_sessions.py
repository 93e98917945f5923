"""Ending access ends browser sessions; allauth's rows are shown without secrets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from allauth.usersessions.models import UserSession

from accounts.models import AuditEvent, User
from accounts.models.browser_sessions import sessions_of
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
USERS, SESSIONS = "/admin/accounts/user/", "/admin/usersessions/usersession/"
FACTORS = "/admin/mfa/authenticator/"


@pytest.fixture
def carol(server: Portico, default_users: None) -> Iterator[Browser]:
    """carol, signed in to the admin."""
    with Browser(server.url) as browser:
        yield browser.sign_in("carol")


@pytest.fixture
def olga(server: Portico, default_users: None) -> Iterator[Browser]:
    """A user with a portal session and nothing else."""
    UserSession.objects.filter(user=make_user("olga", "User")).delete()
    with Browser(server.url) as browser:
        yield signed_in(browser)


def signed_in(browser: Browser) -> Browser:
    browser.open("/accounts/login/?next=/portal/")
    form = browser.form("password")
    return browser.submit(form, login="olga", password=PASSWORD)


def at_portal(browser: Browser) -> bool:
    """Whether the browser is still signed in."""
    return "/accounts/login/" not in str(browser.open("/portal/").page.url)


def olga_account() -> User:
    found: User = User.objects.get(username="olga")
    return found


@pytest.mark.parametrize("action", ["revoke_tokens", "deactivate"])
def test_ending_access_signs_browsers_out(
    carol: Browser, olga: Browser, server: Portico, action: str
) -> None:
    """The page states the numbers of tokens and browsers first."""
    client, account = mcp_client(server, "olga"), olga_account()
    assert at_portal(olga) and sessions_of([account.pk]).count() == 1
    carol.act(USERS, action, account.pk, confirm=False)
    assert "This signs out 1 browser." in carol.page.text and at_portal(olga)
    carol.act(USERS, action, account.pk)
    assert not at_portal(olga) and client.call("look").status_code == 401
    assert not UserSession.objects.filter(user=account).exists()
    event = AuditEvent.objects.filter(action="session.ended", object="olga").first()
    assert event is not None and event.actor == "carol"


def test_revoking_ones_own_access_keeps_the_current_session(
    carol: Browser, server: Portico
) -> None:
    """Other browsers are signed out; ending this session would lose the response."""
    account = User.objects.get(username="carol")
    with Browser(server.url) as other:
        other.sign_in("carol")
        carol.act(USERS, "revoke_tokens", account.pk)
        assert carol.page.status_code == 200 and "signed out." in carol.page.text
        assert "/login/" in str(other.open("/admin/").page.url)
    assert "Users" in carol.open(USERS).page.text
