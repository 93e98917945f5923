"""Notices about users, tokens and the installation: when they appear and what for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.mfa.models import Authenticator
from django.core.checks import Error, Warning
from django.utils import timezone

from accounts.admin import failed_logins
from accounts.admin import notices as module
from accounts.admin_site import notices as registry
from accounts.admin_site.notices import Notice
from accounts.models import AccessRequest, IssuedToken, Role, RoleAssignment
from tests.support.admin_browser import AdminBrowser, add_token
from tests.support.users import account

pytestmark = pytest.mark.django_db
NOW = timezone.now()
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture(autouse=True)
def frozen(monkeypatch: Any) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


def one(found: Any) -> Notice:
    (notice,) = found
    return notice  # type: ignore[no-any-return]


def where(notice: Notice) -> tuple[str, dict[str, str]]:
    """The path and the query of the link."""
    url = urlsplit(notice.url)
    return url.path, {name: value[0] for name, value in parse_qs(url.query).items()}


PERMISSIONS = {
    module.expiring_assignments: "accounts.view_roleassignment",
    module.staff_without_mfa: "accounts.view_user",
    module.pending_requests: "accounts.view_accessrequest",
    module.expiring_personal_tokens: "accounts.view_issuedtoken",
    module.unused_personal_tokens: "accounts.view_issuedtoken",
    module.failing_checks: "accounts.view_system",
    failed_logins.locked_accounts: "axes.view_accessattempt",
}


def test_each_notice_needs_the_permission_of_its_list() -> None:
    found = {finder: name for name, finder in registry._finders}
    assert {finder: found[finder] for finder in PERMISSIONS} == PERMISSIONS


def test_roles_that_end_within_a_week() -> None:
    role = Role.objects.get(name="User")
    for name, end in {
        "ended": NOW,
        "later": NOW + 7 * DAY,
        "forever": None,
    }.items():
        RoleAssignment.objects.grant(account(name), role, expires_at=end)
    assert list(module.expiring_assignments()) == []
    for name, end in {"near": NOW + SECOND, "far": NOW + 7 * DAY - SECOND}.items():
        RoleAssignment.objects.grant(account(name), role, expires_at=end)
    notice = one(module.expiring_assignments())
    assert notice.text == "2 roles end within 7 days: near, far"
    assert where(notice) == ("/admin/accounts/roleassignment/", {"end": "soon"})
    assert not notice.urgent


def test_active_staff_without_a_second_factor() -> None:
    account("alice")
    account("gone", is_staff=True, is_active=False)
    safe = account("safe", is_staff=True)
    Authenticator.objects.create(user=safe, type="totp", data={})
    assert list(module.staff_without_mfa()) == []
    account("zoe", is_staff=True)
    notice = one(module.staff_without_mfa())
    assert notice.text == "1 staff member has no second factor: zoe"
    account("amy", is_staff=True)
    text = one(module.staff_without_mfa()).text
    assert text == "2 staff members have no second factor: amy, zoe"
    query = {"is_staff__exact": "1", "is_active__exact": "1", "factor": "none"}
    assert where(notice) == ("/admin/accounts/user/", query)


def test_open_requests() -> None:
    for name, state in {"alice": "open", "bob": "declined"}.items():
        if name == "alice":
            assert list(module.pending_requests()) == []
        AccessRequest.objects.create(
            user=account(name),
            role=Role.objects.get(name="User"),
            reason="r",
            state=state,
        )
    notice = one(module.pending_requests())
    assert notice.text == "1 access request is waiting: alice"
    query = {"state__exact": "open"}
    assert where(notice) == ("/admin/accounts/accessrequest/", query)


def test_personal_tokens_that_expire_within_a_week() -> None:
    for name, kind, end in (
        ("ended", "personal", NOW),
        ("later", "personal", NOW + 7 * DAY),
        ("access", "access", NOW + DAY),
        ("revoked", "personal", NOW + DAY),
    ):
        row = add_token(account(name), kind=kind, expires_at=end)
        if name == "revoked":
            IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    assert list(module.expiring_personal_tokens()) == []
    soon = NOW + 7 * DAY - SECOND
    add_token(account("alice"), kind="personal", expires_at=soon)
    notice = one(module.expiring_personal_tokens())
    assert notice.text == "1 personal token expires within 7 days: alice"
    query = {"kind__exact": "personal", "state": "active", "expiry": "week"}
    assert where(notice) == ("/admin/accounts/issuedtoken/", query)


def test_personal_tokens_that_are_not_used() -> None:
    """Issued and last used more than 90 days ago; a revoked token needs no notice."""
    then, old = NOW - 90 * DAY, NOW - 90 * DAY - SECOND
    cases: dict[str, dict[str, Any]] = {
        "new": {"issued_at": then},
        "used": {"issued_at": old, "last_used_at": then},
        "access": {"issued_at": old, "kind": "access"},
        "revoked": {"issued_at": old},
    }
    for name, fields in cases.items():
        row = add_token(account(name), **{"kind": "personal", **fields})
        if name == "revoked":
            IssuedToken.objects.filter(pk=row.pk).revoke(actor="x", reason="y")
    assert list(module.unused_personal_tokens()) == []
    add_token(account("alice"), kind="personal", issued_at=old)
    add_token(account("bob"), kind="personal", issued_at=old, last_used_at=old)
    notice = one(module.unused_personal_tokens())
    text = "2 personal tokens have not been used for 90 days: "
    assert str(notice.text).startswith(text) and "alice" in str(notice.text)
    query = {"kind__exact": "personal", "state": "active", "use": "90"}
    assert where(notice) == ("/admin/accounts/issuedtoken/", query)


def test_failing_checks_except_those_with_a_notice_of_their_own(
    monkeypatch: Any,
) -> None:
    found = [
        Error("broken", id="portico.E900"),
        Warning("odd", id="portico.W900"),
        Error("covered", id="portico.W901"),
    ]
    monkeypatch.setattr(module, "findings", lambda: found)
    monkeypatch.setattr(module, "covered_checks", {"portico.W901"})
    rows = [(notice.text, notice.urgent) for notice in module.failing_checks()]
    assert rows == [("broken", True), ("odd", False)]
    assert {notice.url for notice in module.failing_checks()} == {"/admin/system/"}


def test_more_than_fifty_are_not_counted() -> None:
    for number in range(51):
        account(f"u{number:02}", is_staff=True)
    text = str(one(module.staff_without_mfa()).text)
    assert (
        text.startswith("50+ staff members") and "u00, u01, u02, u03, u04 ..." in text
    )
    assert module.count_text(["x"] * 50) == "50" and module.count_text(["x"] * 51) == (
        "50+"
    )


def test_at_most_five_names_are_shown_once_each() -> None:
    assert module.first_names(["b", "a", "b"]) == "b, a"
    assert module.first_names(list("abcde")) == "a, b, c, d, e"
    assert module.first_names(list("abcdef")) == "a, b, c, d, e ..."


@pytest.mark.parametrize("label", ["accounts", "mcp_bridge", "axes"])
def test_every_index_page_has_the_same_notices(root: AdminBrowser, label: str) -> None:
    account("vera", is_staff=True)
    texts = [str(notice.text) for notice in module.staff_without_mfa()]
    for path in ("/admin/", f"/admin/{label}/"):
        page = root.open(path).page.text
        assert texts and all(text in page for text in texts), path
        assert "Nothing needs attention." not in page
