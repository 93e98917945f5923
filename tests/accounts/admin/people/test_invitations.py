"""Invitations in the admin: the form, the links, the list."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from accounts.authorization.invitations import invite
from accounts.models import Invitation, Role, RoleAssignment, User
from tests.support.admin_browser import AdminBrowser, list_url, row_url, staff_member
from tests.support.model_rows import past
from tests.support.page_tables import admin_page
from tests.support.users import account

pytestmark = pytest.mark.django_db
PATH = "/admin/users/invite/"
LINK = r"/accounts/invitation/[\w-]{43}/"
STAFF = ("view_user", "add_user", "change_user", "add_roleassignment")


@pytest.fixture
def lead() -> AdminBrowser:
    """May add users, and has the role User."""
    return AdminBrowser(staff_member("lead", *STAFF, roles=("User",)))


def send(browser: AdminBrowser, **fields: Any) -> str:
    form = browser.open(PATH).form("username")
    return str(browser.submit(form, **fields).page.text)


def links_on(page: str) -> list[str]:
    return re.findall(LINK, page)


def role_id(name: str) -> str:
    return str(Role.objects.get(name=name).pk)


def test_one_form_invites_a_person_with_roles(root: AdminBrowser) -> None:
    """Button, form, link."""
    assert PATH in root.open(list_url(User)).page.text
    page = send(root, username="dana", roles=[role_id("User")], until_0="2d")
    (link,) = links_on(page)
    assert link not in root.open(list_url(Invitation)).page.text
    held = RoleAssignment.objects.get(user__username="dana")
    assert held.role.name == "User" and held.expires_at is not None
    assert Invitation.objects.get().inviter == "root"


def test_only_roles_that_one_may_give_are_offered(lead: AdminBrowser) -> None:
    page = lead.open(PATH).page.text
    assert f'value="{role_id("User")}"' in page
    assert f'value="{role_id("Admin")}"' not in page
    page = send(lead, username="dana", roles=[role_id("Admin")], until_0="none")
    assert lead.page.status_code == 400 and not links_on(page)
    assert not User.objects.filter(username="dana").exists()


def test_roles_need_the_permission_to_grant_them() -> None:
    browser = AdminBrowser(staff_member("lead", "add_user", roles=("User",)))
    page = send(browser, username="dana", roles=[role_id("User")], until_0="none")
    assert links_on(page) and "id_roles" not in page
    assert not RoleAssignment.objects.filter(user__username="dana").exists()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"username": ""}, "required"),
        ({"username": "a b"}, "valid username"),
        ({"username": "a b", "email": "x"}, "valid username"),
        ({"username": "ROOT", "email": "x"}, "exists already"),
        ({"username": "known"}, "can sign in already"),
        ({"username": "dana", "email": "x"}, "valid email"),
        ({"username": "old", "email": "other@example.org"}, "another address"),
        ({"username": "dana", "until_0": "until"}, "Enter a date"),
    ],
)
def test_a_bad_form_says_what_to_change(
    root: AdminBrowser, fields: dict[str, str], text: str
) -> None:
    User.objects.filter(pk=account("known").pk).update(password="x$y")
    account("old", email="old@example.org")
    page = send(root, **{"until_0": "none", **fields})
    assert root.page.status_code == 400 and text in page and not links_on(page)
    assert not Invitation.objects.exists()


@pytest.mark.parametrize("address", ["", "old@example.org", "Old@Example.org"])
def test_an_account_is_invited_with_its_address(
    root: AdminBrowser, address: str
) -> None:
    account("old", email="old@example.org")
    assert links_on(send(root, username="old", email=address, until_0="none"))


def test_a_person_with_an_account_is_invited_from_their_page(
    root: AdminBrowser,
) -> None:
    dana = account("dana", email="dana@example.org")
    assert f"{PATH}?user=dana" in root.open(row_url(User, dana)).page.text
    form = root.open(f"{PATH}?user=dana").form("username")
    assert form.fields["email"] == "dana@example.org"
    assert links_on(root.submit(form).page.text)
    assert [m.to for m in mail.outbox] == [["dana@example.org"]]
    User.objects.filter(pk=dana.pk).update(password="x$y")
    assert f"{PATH}?user=" not in root.open(row_url(User, dana)).page.text


def test_nothing_is_offered_or_mailed_without_a_mail_server(
    root: AdminBrowser, settings: Any
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert 'name="mail"' not in root.open(PATH).page.text
    assert links_on(send(root, username="dana", email="dana@example.org"))
    assert Invitation.objects.get().mailed_to == ""


def test_an_account_needs_the_permission_to_change_it() -> None:
    account("dana")
    browser = AdminBrowser(staff_member("lead", "add_user", roles=("User",)))
    assert "permission to change" in send(browser, username="dana")
    assert not Invitation.objects.exists()


def test_the_list_shows_states_and_resends(root: AdminBrowser) -> None:
    row, old = invite(User(username="dana"), [], None, actor=root.user)
    Invitation.objects.update(expires_at=past())
    assert "expired" in root.open(list_url(Invitation)).page.text
    (link,) = links_on(root.run(Invitation, "resend", row))
    assert old not in link and "pending" in root.open(list_url(Invitation)).page.text
    assert "dana" not in root.open(f"{list_url(Invitation)}?state=expired").page.text


@pytest.mark.parametrize(
    ("state", "shown"),
    [("pending", True), ("expired", True), ("accepted", False), ("withdrawn", False)],
)
def test_the_end_of_a_link_is_shown_until_it_is_used(
    root: AdminBrowser, state: str, shown: bool
) -> None:
    """On the list and on the page of the row."""
    row, _raw = invite(User(username="dana"), [], None, actor=root.user)
    end = timezone.now() + timedelta(days=-2 if state == "expired" else 2)
    used = {} if shown else {f"{state}_at": timezone.now()}
    Invitation.objects.update(expires_at=end, **used)
    for path in (list_url(Invitation), row_url(Invitation, row)):
        page = root.open(path).page.text
        assert state in page and (f"{end:%Y-%m-%d %H:%M:%S}" in page) == shown


@pytest.mark.parametrize("mailed", [False, True])
def test_a_new_link_is_mailed_if_the_earlier_one_was(
    root: AdminBrowser, mailed: bool
) -> None:
    user = User(username="dana", email="dana@example.org")
    row, _raw = invite(user, [], None, actor=root.user)
    Invitation.objects.update(mailed_to=user.email if mailed else "")
    assert links_on(root.run(Invitation, "resend", row))
    assert [one.to for one in mail.outbox] == ([[user.email]] if mailed else [])


def test_withdrawing_ends_the_link_and_an_unused_account(root: AdminBrowser) -> None:
    row, _raw = invite(User(username="dana"), [], None, actor=root.user)
    page = root.run(Invitation, "withdraw", row)
    assert "1 invitation withdrawn." in page and "deactivated: dana" in page
    assert not User.objects.get(username="dana").is_active
    assert "this invitation is withdrawn" in root.run(Invitation, "resend", row)


@pytest.mark.parametrize("action", ["resend", "withdraw"])
def test_invitations_of_more_privileged_people_are_kept(
    root: AdminBrowser, lead: AdminBrowser, action: str
) -> None:
    row, _raw = invite(account("dana", "Admin"), [], None, actor=root.user)
    before = Invitation.objects.values().get()
    assert "more permissions than you" in lead.run(Invitation, action, row)
    assert Invitation.objects.values().get() == before


def test_who_may_not_invite_sees_at_most_the_list() -> None:
    browser = AdminBrowser(staff_member("paul", "view_user", "view_invitation"))
    assert browser.open(PATH).page.status_code == 403
    page = browser.open(list_url(Invitation)).page
    assert page.status_code == 200 and PATH not in page.text


@pytest.mark.parametrize(
    ("codename", "status"),
    [
        ("view_invitation", 200),
        ("add_user", 200),
        ("change_user", 403),
        ("add_roleassignment", 403),
    ],
)
def test_who_may_invite_sees_what_became_of_it(
    root: AdminBrowser, codename: str, status: int
) -> None:
    row, _raw = invite(User(username="dana"), [], None, actor=root.user)
    reader = AdminBrowser(staff_member("reader", codename))
    for path in (list_url(Invitation), row_url(Invitation, row)):
        assert reader.open(path).page.status_code == status


@pytest.mark.parametrize(
    ("codenames", "offered"),
    [
        (("add_user", "change_user"), True),
        (("add_user",), False),
        (("change_user",), False),
        ((), False),
    ],
)
def test_the_button_needs_both_permissions(
    codenames: tuple[str, ...], offered: bool
) -> None:
    dana = account("dana")
    reader = AdminBrowser(staff_member("reader", "view_user", *codenames))
    page = reader.open(row_url(User, dana)).page.text
    assert (f"{PATH}?user=dana" in page) == offered


@pytest.mark.parametrize("mailed", [False, True])
def test_the_page_says_how_the_link_travels(root: AdminBrowser, mailed: bool) -> None:
    """A link that could not be mailed has to be sent by hand."""
    user = account("dana", email="dana@example.org")
    row, _raw = Invitation.objects.issue(user, actor=root.user)
    Invitation.objects.filter(pk=row.pk).update(mailed_to=user.email)
    row.refresh_from_db()
    links = [{"row": row, "url": "https://x.example/<1>", "mailed": mailed}]
    page = admin_page("admin/invite.html", links=links)
    assert ("Mailed to dana@example.org." in page) == mailed
    assert ("Send it to this person only" in page) == (not mailed)
    assert ">https://x.example/&lt;1&gt;</code>" in page and "<h2>dana</h2>" in page
    assert f"Works once, until {row.expires_at:%Y-%m-%d %H:%M} UTC." in page
