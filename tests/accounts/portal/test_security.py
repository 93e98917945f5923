"""The security page: factors, sessions, and signing out everywhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.test import Client

from accounts.models import AuditEvent, IssuedToken, SignInProvider, User
from accounts.tokens.issue import issue_tokens
from tests.support.users import account, browser_of

PAGE = "/portal/security/"


def factor(user: User, kind: str) -> Authenticator:
    data = {"name": f"key of {user}"}
    row: Authenticator = Authenticator.objects.create(user=user, type=kind, data=data)
    return row


def context_of(browser: Client) -> Any:
    answer = browser.get(PAGE)
    assert answer.status_code == 200
    return answer.context


def test_the_page_lists_the_users_own_factors(browser: Client, alice: User) -> None:
    bob = account("bob")
    assert not context_of(browser)["factors"] and not context_of(browser)["keys"]
    for kind in ("totp", "webauthn", "recovery_codes"):
        factor(bob, kind)
    mine = factor(alice, "totp")
    assert context_of(browser)["factors"] == {"totp": mine}
    assert context_of(browser)["keys"] == []
    key = factor(alice, "webauthn")
    assert context_of(browser)["keys"] == [key]


def test_a_passkey_is_managed_here_only(browser: Client, alice: User) -> None:
    """The list of the library has raw dates and breaks words on narrow screens."""
    key = factor(alice, "webauthn")
    page = browser.get(PAGE).content.decode()
    assert f"/accounts/2fa/webauthn/keys/{key.pk}/edit/" in page
    assert "not used yet" in page
    assert browser.get("/accounts/2fa/webauthn/")["Location"] == PAGE


@pytest.mark.parametrize("staff", [False, True])
def test_staff_are_asked_for_a_factor(
    browser: Client, alice: User, staff: bool, settings: Any
) -> None:
    settings.STAFF_SECOND_FACTOR = True
    User.objects.filter(pk=alice.pk).update(is_staff=staff)
    assert context_of(browser)["owes"] == staff
    factor(alice, "totp")
    assert not context_of(browser)["owes"]


def test_providers_are_offered_while_one_is_enabled(browser: Client) -> None:
    assert not context_of(browser)["providers"]
    row = SignInProvider.objects.create(slug="corp", name="Corp", issuer="https://c")
    assert context_of(browser)["providers"]
    SignInProvider.objects.filter(pk=row.pk).update(enabled=False)
    assert not context_of(browser)["providers"]


def test_sessions_are_named_by_browser_and_times_by_zone(
    browser: Client, alice: User
) -> None:
    """The whole header is a tooltip."""
    agent = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0"
    browser.get(PAGE)
    UserSession.objects.filter(user=alice).update(user_agent=agent)
    browser.cookies["portico_time_zone"] = "Asia/Seoul"
    text = browser.get(PAGE).content.decode()
    assert f'title="{agent}">Firefox on Linux' in text
    assert "Times are in the time zone Asia/Seoul." in text


def test_one_session_ends_and_the_others_stay(browser: Client, alice: User) -> None:
    there = browser_of(alice)
    listed = UserSession.objects.filter(user=alice).order_by("pk")
    UserSession.objects.filter(pk=listed[1].pk).update(ip="192.0.2.7")
    answer = browser.post(PAGE, {"end": listed[1].pk})
    assert answer.status_code == 302 and answer["Location"] == PAGE
    assert "Session ended." in browser.get(PAGE).content.decode()
    assert there.get(PAGE).status_code == 302
    event = AuditEvent.objects.get(action="session.ended")
    assert (event.actor, event.object) == ("alice", "session from 192.0.2.7")
    assert (event.address, event.subject) == ("127.0.0.1", f"user:{alice.pk}")


def test_signing_out_everywhere_ends_sessions_and_tokens(
    browser: Client, alice: User
) -> None:
    """Of this user only; this session is included."""
    bob = account("bob")
    elsewhere, theirs = browser_of(alice), browser_of(bob)
    issue_tokens(alice, issued_via="password")
    issue_tokens(alice, issued_via="password")
    issue_tokens(bob, issued_via="password")
    answer = browser.post(PAGE, {"everywhere": "1"})
    assert answer.status_code == 302 and answer["Location"] == "/accounts/login/"
    assert answer.cookies[settings.SESSION_COOKIE_NAME].value == ""
    assert AuditEvent.objects.get(action="user.signed_out").actor == "alice"
    for ended in (browser, elsewhere):
        assert ended.get(PAGE).status_code == 302
    assert theirs.get(PAGE).status_code == 200
    assert not IssuedToken.objects.filter(user=alice).live().exists()
    assert IssuedToken.objects.filter(user=bob).live().count() == 2
    event = AuditEvent.objects.get(action="user.signed_out_everywhere")
    assert (event.actor, event.object) == ("alice", "2 sessions, 4 tokens")
    assert (event.address, event.subject) == ("127.0.0.1", f"user:{alice.pk}")
    revoked = AuditEvent.objects.filter(action="token.revoked")
    found = set(revoked.values_list("actor", "reason"))
    assert found == {("alice", "signed out everywhere")}


def test_the_session_of_this_browser_has_no_button(
    browser: Client, alice: User
) -> None:
    browser.get(PAGE)
    other = browser_of(alice)
    other.get(PAGE)
    here, there = UserSession.objects.filter(user=alice).order_by("pk")
    text = browser.get(PAGE).content.decode()
    assert re.findall(r'name="end" value="(\d+)"', text) == [str(there.pk)]
    assert text.count("this browser") == 1
    seen = other.get(PAGE).content.decode()
    assert re.findall(r'name="end" value="(\d+)"', seen) == [str(here.pk)]
