"""Summary of one user: counts, each linked to its list."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.admin_site.site import PorticoSite
from accounts.http.relative_times import time_element
from accounts.models import AccessRequest, AuditEvent, IssuedToken, User

Card = tuple[str, Any, str]


def user_summary(request: HttpRequest, user: User) -> list[Card]:
    """(label, count, URL) for each list that the actor may view."""
    cards = [
        tokens(user) if may_view(request, "issuedtoken") else None,
        sign_ins(user) if may_view(request, "auditevent") else None,
        refusals(user) if may_view(request, "auditevent") else None,
        requests(user) if may_view(request, "accessrequest") else None,
        access_check(request, user),
    ]
    return [card for card in cards if card is not None]


def may_view(request: HttpRequest, model: str) -> bool:
    return bool(request.user.has_perm(f"accounts.view_{model}"))


def user_list_url(model: str, **query: Any) -> str:
    """URL of an admin list with filters."""
    return f"{reverse(f'admin:accounts_{model}_changelist')}?{urlencode(query)}"


def tokens(user: User) -> Card:
    count = IssuedToken.objects.filter(user=user).live().order_by().count()
    url = user_list_url("issuedtoken", username=user.username, state="active")
    return ngettext("active token", "active tokens", count), count, url


def sign_ins(user: User) -> Card:
    """Last sign-in to the admin or the portal."""
    last = time_element(user.last_login) if user.last_login else "-"
    url = user_list_url("auditevent", actor=user.username, action="user.signed_in")
    return _("last sign-in"), last, url


def refusals(user: User) -> Card:
    """Number of denied messages; "100+" above 100."""
    rows = AuditEvent.objects.filter(actor=user.username, decision="denied")
    count = rows.order_by()[:101].count()
    url = user_list_url("auditevent", actor=user.username, decision__exact="denied")
    return _("denied"), "100+" if count > 100 else count, url


def requests(user: User) -> Card:
    count = AccessRequest.objects.filter(user=user).open().count()
    url = user_list_url("accessrequest", q=user.username, state__exact="open")
    return ngettext("pending request", "pending requests", count), count, url


def access_check(request: HttpRequest, user: User) -> Card | None:
    """Link to the access check, if the actor may open it."""
    site = cast(PorticoSite, admin.site)
    page = site.pages.get("access_check")
    if page is None or not page.allowed(request):
        return None
    query = urlencode({"user": user.username})
    url = f"{reverse('admin:access_check')}?{query}"
    return _("available tools"), "→", url
