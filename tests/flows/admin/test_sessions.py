"""Ending access ends browser sessions; allauth's rows are shown without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.utils import timezone

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


def test_a_deactivated_account_loses_its_sessions(
    carol: Browser, olga: Browser
) -> None:
    """After reactivation it is signed in nowhere."""
    page = f"{USERS}{olga_account().pk}/change/"
    carol.save(page, is_active=None)
    carol.save(page, is_active="on")
    assert not at_portal(olga)


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


def test_expired_sessions_are_not_counted(olga: Browser) -> None:
    account, now = olga_account(), timezone.now()
    keys = UserSession.objects.filter(user=account).values("session_key")
    Session.objects.filter(pk__in=keys).update(expire_date=now - timedelta(1))
    assert sessions_of([account.pk]).count() == 0


def test_sessions_are_shown_and_ended_without_their_keys(
    carol: Browser, olga: Browser
) -> None:
    """A session's key would let its reader act as that user."""
    session = UserSession.objects.get(user__username="olga")
    listed = carol.open(f"{SESSIONS}?q=olga").page.text
    shown = carol.open(f"{SESSIONS}{session.pk}/change/").page.text
    assert "olga" in listed and "olga" in shown
    assert session.session_key not in listed + shown
    carol.act(SESSIONS, "end", session.pk)
    assert "1 browser signed out." in carol.page.text and not at_portal(olga)


def test_second_factors_are_shown_without_their_secrets(carol: Browser) -> None:
    """Providers' own secrets have no page at all."""
    data = {"secret": "what-nobody-may-read"}
    row = Authenticator.objects.create(
        user=make_user("paula"), type=Authenticator.Type.TOTP, data=data
    )
    try:
        pages: Any = [carol.open(f"{FACTORS}{path}").page for path in ("", row.pk)]
        assert all("paula" in page.text for page in pages)
        assert not any("what-nobody" in page.text for page in pages)
    finally:
        row.delete()
    for gone in ("socialapp", "socialtoken"):
        page = carol.open(f"/admin/socialaccount/{gone}/").page
        assert page.status_code == 404


def test_staff_without_a_second_factor_are_listed(carol: Browser) -> None:
    """The dashboard links to their list."""
    quinn = make_user("quinn", admin=True)
    index = carol.open("/admin/").page.text
    assert "no second factor" in index and "factor=none" in index
    query = "?is_staff__exact=1&is_active__exact=1"
    assert "quinn" in carol.open(f"{USERS}{query}&factor=none").page.text
    assert "quinn" not in carol.open(f"{USERS}{query}&factor=some").page.text
    row = Authenticator.objects.create(
        user=quinn, type=Authenticator.Type.WEBAUTHN, data={}
    )
    try:
        assert "quinn" not in carol.open(f"{USERS}{query}&factor=none").page.text
        assert "quinn" in carol.open(f"{USERS}{query}&factor=some").page.text
    finally:
        row.delete()
        quinn.delete()
