"""Notices about users, tokens and the installation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.checks import ERROR
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import ngettext

from accounts.admin_site.notices import Notice, covered_checks, notice_finder
from accounts.admin_site.system_status import findings
from accounts.authorization.mfa_enrollment import without_mfa
from accounts.models import AccessRequest, IssuedToken, RoleAssignment, TokenKind, User

SOON = timedelta(days=7)
UNUSED = timedelta(days=90)


def list_url(model: str, **query: Any) -> str:
    """URL of an admin list with filters."""
    return f"{reverse(f'admin:accounts_{model}_changelist')}?{urlencode(query)}"


@notice_finder("accounts.view_roleassignment")
def expiring_assignments() -> Iterator[Notice]:
    """Role assignments that expire within a week."""
    now = timezone.now()
    ending = RoleAssignment.objects.filter(
        expires_at__gt=now, expires_at__lt=now + SOON
    )
    names = list(ending.values_list("user__username", flat=True)[:51])
    if names:
        message = ngettext(
            "%(n)s role ends within 7 days: %(who)s",
            "%(n)s roles end within 7 days: %(who)s",
            len(names),
        )
        url = list_url("roleassignment", end="soon")
        yield Notice(message % {"n": count_text(names), "who": first_names(names)}, url)


@notice_finder("accounts.view_user")
def staff_without_mfa() -> Iterator[Notice]:
    """Active staff without a second factor."""
    staff = without_mfa(User.objects.filter(is_staff=True, is_active=True))
    names = list(staff.order_by("username").values_list("username", flat=True)[:51])
    if names:
        message = ngettext(
            "%(n)s staff member has no second factor: %(who)s",
            "%(n)s staff members have no second factor: %(who)s",
            len(names),
        )
        url = list_url("user", is_staff__exact=1, is_active__exact=1, factor="none")
        yield Notice(message % {"n": count_text(names), "who": first_names(names)}, url)


@notice_finder("accounts.view_accessrequest")
def pending_requests() -> Iterator[Notice]:
    names = list(
        AccessRequest.objects.all().open().values_list("user__username", flat=True)[:51]
    )
    if names:
        message = ngettext(
            "%(n)s access request is waiting: %(who)s",
            "%(n)s access requests are waiting: %(who)s",
            len(names),
        )
        url = list_url("accessrequest", state__exact="open")
        yield Notice(message % {"n": count_text(names), "who": first_names(names)}, url)


@notice_finder("accounts.view_issuedtoken")
def expiring_personal_tokens() -> Iterator[Notice]:
    """Personal tokens that expire within a week."""
    now = timezone.now()
    ending = IssuedToken.objects.filter(
        kind=TokenKind.PERSONAL, expires_at__gt=now, expires_at__lt=now + SOON
    ).live()
    # In the order of the index on both conditions.
    ending = ending.order_by("expires_at")
    names = list(ending.values_list("username", flat=True)[:51])
    if names:
        message = ngettext(
            "%(n)s personal token expires within 7 days: %(who)s",
            "%(n)s personal tokens expire within 7 days: %(who)s",
            len(names),
        )
        url = list_url(
            "issuedtoken",
            kind__exact=TokenKind.PERSONAL,
            state="active",
            expiry="week",
        )
        yield Notice(message % {"n": count_text(names), "who": first_names(names)}, url)


@notice_finder("accounts.view_issuedtoken")
def unused_personal_tokens() -> Iterator[Notice]:
    """Live personal tokens that were not used for 90 days."""
    before = timezone.now() - UNUSED
    idle = Q(last_used_at__lt=before) | Q(last_used_at=None)
    tokens = IssuedToken.objects.filter(
        idle, kind=TokenKind.PERSONAL, issued_at__lt=before
    ).live()
    names = list(tokens.values_list("username", flat=True)[:51])
    if names:
        message = ngettext(
            "%(n)s personal token has not been used for 90 days: %(who)s",
            "%(n)s personal tokens have not been used for 90 days: %(who)s",
            len(names),
        )
        url = list_url(
            "issuedtoken",
            kind__exact=TokenKind.PERSONAL,
            state="active",
            use="90",
        )
        yield Notice(message % {"n": count_text(names), "who": first_names(names)}, url)


@notice_finder("accounts.view_system")
def failing_checks() -> Iterator[Notice]:
    for message in findings():
        if message.id in covered_checks:
            continue
        urgent = message.level >= ERROR
        yield Notice(message.msg, reverse("admin:system"), urgent)


def count_text(names: list[str]) -> str:
    """The count, or "50+" above 50: callers query 51 rows at most."""
    return f"{len(names)}" if len(names) <= 50 else "50+"


def first_names(names: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(names[:5]))
    return f"{shown} ..." if len(names) > 5 else shown
