"""End all access of one person: what it ends, with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Invitation, IssuedToken, User
from tests.support.admin_browser import (
    AdminBrowser,
    add_token,
    events_by,
    is_live,
    list_url,
    row_url,
    signed_in,
    staff_member,
)
from tests.support.model_rows import past
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
PATH = "/admin/users/end-access/"


@pytest.fixture
def dana() -> User:
    return account("dana", "User")


def end(browser: AdminBrowser, user: User, **fields: str) -> str:
    return str(browser.post(PATH, person=str(user.pk), **fields).text)


def test_the_page_says_what_ends(root: AdminBrowser, dana: User) -> None:
    """From the person's page."""
    browser_of(dana)
    add_token(dana)
    assert f"{PATH}?person={dana.pk}" in root.open(row_url(User, dana)).page.text
    page = root.open(f"{PATH}?person={dana.pk}").page.text
    assert "1 active token" in page and "1 browser" in page
    assert IssuedToken.objects.live().exists()


def test_everything_ends_for_the_given_reason(root: AdminBrowser, dana: User) -> None:
    token, browser = add_token(dana), browser_of(dana)
    other = add_token(account("bob"))
    Invitation.objects.issue(dana, actor="command line")
    page = end(root, dana, reason="laptop stolen")
    assert "1 token revoked. 1 browser signed out." in page
    assert not is_live(token) and not signed_in(browser) and is_live(other)
    reasons = {(action, why) for action, _object, why in events_by(root.user)}
    assert ("token.revoked", "laptop stolen") in reasons
    assert ("invitation.withdrawn", "laptop stolen") in reasons
    assert User.objects.get(pk=dana.pk).is_active


def test_a_leaver_is_deactivated_too(root: AdminBrowser, dana: User) -> None:
    assert "dana is deactivated." in end(root, dana, reason="left", deactivate="yes")
    assert not User.objects.get(pk=dana.pk).is_active
    assert ("user.deactivated", "dana", "left") in events_by(root.user)


def test_one_stays_signed_in_and_active(root: AdminBrowser) -> None:
    other = browser_of(root.user)
    end(root, root.user, deactivate="yes")
    assert root.still_signed_in() and not signed_in(other)
    assert User.objects.get(pk=root.user.pk).is_active


def test_more_privileged_people_are_kept(root: AdminBrowser) -> None:
    staff = staff_member("lead", "view_user", "change_issuedtoken", "change_user")
    lead, token = AdminBrowser(staff), add_token(root.user)
    assert "more permissions than you" in end(lead, root.user, deactivate="yes")
    assert lead.page.status_code == 400 and is_live(token)
    page = lead.open(f"{PATH}?person={root.user.pk}").page.text
    assert 'name="reason"' not in page


def test_deactivating_needs_the_permission_to_change(dana: User) -> None:
    helper = AdminBrowser(staff_member("helper", "view_user", "change_issuedtoken"))
    assert "deactivate" not in helper.open(f"{PATH}?person={dana.pk}").page.text
    end(helper, dana, deactivate="yes")
    assert User.objects.get(pk=dana.pk).is_active


@pytest.mark.parametrize("key", ["", "x", "999999999", "-1"])
def test_an_unknown_person_is_no_error(root: AdminBrowser, key: str) -> None:
    assert root.open(f"{PATH}?person={key}").page.status_code == (404 if key else 200)


def test_without_a_person_the_list_is_shown(root: AdminBrowser) -> None:
    assert root.open(PATH).page.url == list_url(User)


@pytest.mark.parametrize("reason", ["", "  ", "left"])
def test_every_event_has_a_reason(root: AdminBrowser, dana: User, reason: str) -> None:
    add_token(dana), browser_of(dana)
    end(root, dana, reason=reason, deactivate="yes")
    ended = {"token.revoked", "session.ended", "user.deactivated"}
    found = {action: why for action, _who, why in events_by(root.user)}
    shown = {found[action] for action in ended}
    assert shown == {reason.strip() or "ended in the admin"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, True),
        ({"withdrawn_at": past()}, False),
        ({"accepted_at": past()}, False),
    ],
)
def test_only_a_link_that_works_ends_too(
    root: AdminBrowser, dana: User, change: dict[str, Any], text: bool
) -> None:
    Invitation.objects.issue(dana, actor="command line")
    Invitation.objects.update(**change)
    page = root.open(f"{PATH}?person={dana.pk}").page.text
    assert ("The invitation link ends, too." in page) == text


def test_without_an_invitation_no_link_ends(root: AdminBrowser, dana: User) -> None:
    page = root.open(f"{PATH}?person={dana.pk}").page.text
    assert "invitation link" not in page and "Roles stay" in page
