"""What a person has, on their page: roles, tokens, apps, browsers, last calls."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin.people.invitations import grantable_roles
from accounts.admin.people.role_changes import CHANGE, GIVE
from accounts.admin.user_summary import user_list_url
from accounts.admin_site.base import may
from accounts.admin_site.filters.clients import name_clients
from accounts.admin_site.site import cells_of
from accounts.authorization.delegation import objection_to_removing
from accounts.models import AuditEvent, Invitation, IssuedToken, RoleAssignment, User
from accounts.models.browser_sessions import sessions_of
from accounts.parsing.end_choice_field import DURATIONS

SHOWN = 5
"""Rows of each panel; it links to the others."""
CALLS = 8
NEWEST = 200
"""Events among which calls are looked for: most others are of the protocol."""


def person_panels(request: HttpRequest, user: User) -> dict[str, Any]:
    """Template context; None for a panel that the reader may not see."""
    shown: dict[str, Any] = {
        "person": user,
        "badges": person_badges(user),
        "durations": DURATIONS[:3],
    }
    for name, permission, panel in PANELS:
        shown[name] = panel(request, user) if may(request, permission) else None
    return shown


def role_rows(request: Any, user: User) -> dict[str, Any]:
    """The roles, whether each may be changed, and the roles that may be given."""
    rows = RoleAssignment.objects.filter(user=user).select_related("role", "granted_by")
    changes = may(request, CHANGE)
    roles = [
        (row, changes and not objection_to_removing(request.user, user, row.role))
        for row in rows
    ]
    others = grantable_roles(request.user, user)
    held = [row.role_id for row in rows if not row.expired]
    if user.pk == request.user.pk and not request.user.is_superuser:
        others = others.none()
    return {
        "rows": roles,
        "others": others.exclude(pk__in=held) if may(request, GIVE) else [],
    }


def token_rows(request: HttpRequest, user: User) -> dict[str, Any]:
    rows = IssuedToken.objects.filter(user=user).live().order_by("-last_used_at")
    shown = list(rows[:SHOWN])
    name_clients(shown)
    url = user_list_url("issuedtoken", username=user.username, state="active")
    return {"rows": shown, "url": url}


def app_rows(request: HttpRequest, user: User) -> dict[str, Any]:
    rows = user.consents.select_related("client")
    return {"rows": rows[:SHOWN], "url": user_list_url("consent", q=user.username)}


def session_rows(request: HttpRequest, user: User) -> dict[str, Any]:
    rows = sessions_of([user.pk]).order_by("-last_seen_at")
    query = {"q": user.username}
    url = reverse("admin:usersessions_usersession_changelist", query=query)
    return {"rows": rows[:SHOWN], "url": url}


def call_rows(request: HttpRequest, user: User) -> dict[str, Any]:
    """The last calls and refusals, each with the links beside it."""
    events = AuditEvent.objects.filter(actor=user.username)[:NEWEST]
    calls = [e for e in events if e.decision and " " in e.object][:CALLS]
    rows = [(event, cells_of(request, event)) for event in calls]
    return {"rows": rows, "url": user_list_url("auditevent", actor=user.username)}


PANELS = (
    ("role_panel", "accounts.view_roleassignment", role_rows),
    ("token_panel", "accounts.view_issuedtoken", token_rows),
    ("app_panel", "accounts.view_consent", app_rows),
    ("session_panel", "usersessions.view_usersession", session_rows),
    ("call_panel", "accounts.view_auditevent", call_rows),
)
"""Name in the template, permission, and the rows."""

STATES = {
    "inactive": (_("deactivated"), "bad"),
    "active": (_("active"), "good"),
    "invited": (_("invitation pending"), "warn"),
    "service": (_("service account"), ""),
    "staff": (_("staff"), ""),
    "superuser": (_("superuser"), "warn"),
}


def person_badges(user: User) -> list[tuple[Any, str]]:
    """(text, look) of each state of the account."""
    found = {
        "inactive": not user.is_active,
        "active": user.is_active,
        "invited": Invitation.objects.filter(user=user).in_state("pending").exists(),
        "service": user.is_service_account,
        "superuser": user.is_superuser,
        "staff": user.is_staff and not user.is_superuser,
    }
    return [STATES[name] for name, applies in found.items() if applies]
