"""allauth's models in the admin: sessions are ended, identities unlinked."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.sessions.models import Session

from accounts.models import ClaimRule, Role, RoleAssignment, SignInProvider, User
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    list_url,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def henry() -> AdminBrowser:
    """The helpdesk: may end access."""
    needed = ("view_usersession", "change_issuedtoken")
    return AdminBrowser(staff_member("henry", *needed))


def session_of(user: User) -> UserSession:
    browser_of(user)
    row: UserSession = UserSession.objects.get(user=user)
    return row


def users_signed_in() -> set[str]:
    keys = Session.objects.values("pk")
    rows = UserSession.objects.filter(session_key__in=keys)
    return set(rows.values_list("user__username", flat=True))


def test_secrets_of_providers_have_no_page() -> None:
    assert not admin.site.is_registered(SocialApp)
    assert not admin.site.is_registered(SocialToken)


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        (Authenticator, "data"),
        (UserSession, "session_key data"),
        (SocialAccount, "extra_data"),
    ],
)
def test_no_page_shows_a_secret_column(model: Any, hidden: str) -> None:
    page: Any = admin.site.get_model_admin(model)
    assert not set(hidden.split()) & {*page.fields, *page.list_display}


def test_selected_sessions_end(root: AdminBrowser) -> None:
    sessions = {name: session_of(account(name)) for name in ("alice", "bob")}
    own = UserSession.objects.get(user=root.user)
    page = root.run(UserSession, "end", sessions["alice"], own)
    assert "1 browser signed out." in page
    assert users_signed_in() == {"bob", "root"}
    assert not UserSession.objects.filter(user__username="alice").exists()
    assert events_by(root.user) == [("session.ended", "alice", "ended in the admin")]
    assert newest_event("session.ended").address == "127.0.0.1"


def test_sessions_of_users_above_stay(henry: AdminBrowser) -> None:
    alice, carol = account("alice", "User"), account("carol", is_superuser=True)
    stella = account("stella", is_staff=True)
    rows = [session_of(user) for user in (alice, carol, stella)]
    page = henry.run(UserSession, "end", *rows[:2])
    assert "1 session belongs to a user with more permissions" in page
    assert "1 browser signed out." in page
    assert users_signed_in() >= {"carol", "stella"} and "alice" not in users_signed_in()
    page = henry.run(UserSession, "end", *rows[1:])
    assert "2 sessions belong to users with more permissions" in page
    assert "0 browsers signed out." in page and users_signed_in() >= {"carol", "stella"}
    assert events_by(henry.user) == [("session.ended", "alice", "ended in the admin")]


def linked(user: User, provider: str = "corp") -> SocialAccount:
    row: SocialAccount = SocialAccount.objects.create(
        user=user, provider=provider, uid=f"{provider}-{user.username}"
    )
    return row


def test_identities_are_unlinked_with_the_roles_of_their_claims(
    root: AdminBrowser,
) -> None:
    corp = SignInProvider.objects.create(slug="corp", name="Corp", client_id="x")
    role = Role.objects.get(name="User")
    ClaimRule.objects.create(provider=corp, claim="groups", value="x", role=role)
    alice, bob = account("alice"), account("bob")
    for user in (alice, bob):
        RoleAssignment.objects.grant(user, role, reason=corp.reason)
    row, other = linked(alice), linked(bob)
    page = root.run(SocialAccount, "unlink", row)
    assert "1 identity unlinked." in page
    assert list(SocialAccount.objects.all()) == [other]
    held = RoleAssignment.objects.values_list("user__username", flat=True)
    assert list(held) == ["bob"]
    assert events_by(root.user)[0] == ("user.unlinked", "alice", "at provider corp")


def test_identities_of_users_above_stay_linked() -> None:
    needed = ("view_socialaccount", "change_user")
    mallory = AdminBrowser(staff_member("mallory", *needed, roles=("Guest",)))
    people = {
        "bert": account("bert", "Guest"),
        "paul": account("paul", "User"),
        "carol": account("carol", is_superuser=True),
        "stella": account("stella", is_staff=True),
    }
    rows = [linked(user, "elsewhere") for user in people.values()]
    page = mallory.run(SocialAccount, "unlink", *rows)
    assert "1 identity unlinked." in page
    left = SocialAccount.objects.values_list("user__username", flat=True)
    assert set(left) == {"paul", "carol", "stella"}
    assert events_by(mallory.user) == [
        ("user.unlinked", "bert", "at provider elsewhere")
    ]
    root = AdminBrowser(account("root", is_staff=True, is_superuser=True))
    assert "3 identities unlinked." in root.run(SocialAccount, "unlink", *rows)


def test_the_rows_can_be_viewed(root: AdminBrowser) -> None:
    alice = account("alice")
    factor = Authenticator.objects.create(user=alice, type="totp", data={"s": "hush"})
    for model, row in (
        (Authenticator, factor),
        (UserSession, session_of(alice)),
        (SocialAccount, linked(alice)),
    ):
        assert root.open(f"{list_url(model)}?q=alice").page.status_code == 200
        assert root.open(row_url(model, row)).page.status_code == 200
        assert "alice" in root.page.text and "hush" not in root.page.text


def test_the_history_of_a_session_is_named_after_its_user() -> None:
    """The browser's name would fill the page, and its user has the events."""
    boss = AdminBrowser(account("boss", is_staff=True, is_superuser=True))
    session = session_of(account("dora"))
    page = boss.open(row_url(UserSession, session, "history")).page
    assert "<h1>History of dora</h1>" in page.text


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0"


def test_titles_name_the_user_and_no_raw_header() -> None:
    ann = User(username="ann")
    rows = [
        Authenticator(user=ann, type="recovery_codes"),
        UserSession(user=ann, ip="192.0.2.1", user_agent=FIREFOX),
        SocialAccount(user=ann, provider="corp", uid="1"),
    ]
    assert [str(row) for row in rows] == [
        "Recovery codes of ann",
        "ann: Firefox on Linux from 192.0.2.1",
        "ann at corp",
    ]
