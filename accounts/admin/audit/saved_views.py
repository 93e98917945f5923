"""Saved views: named searches above the audit list."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.models import SavedView
from accounts.parsing.row_ids import row_id


def offered(request: Any) -> list[SavedView]:
    """Views that this user owns or that are shared; at most 50."""
    return list(SavedView.objects.all().visible_to(request.user)[:50])


def keep(page: Any, request: Any, may_share: bool) -> HttpResponseRedirect:
    """POST `drop=ID` deletes one of the user's views; `name` and `query` save one."""
    if "drop" in request.POST:
        return dropped(request)
    wanted = SavedView(
        owner=request.user,
        name=request.POST.get("name", "").strip(),
        query=narrowing(request.POST.get("query", "")),
        shared=may_share and "shared" in request.POST,
    )
    refused = page.refused_lookups(QueryDict(wanted.query), request)
    if refused:
        text = _("The audit cannot be filtered by %s.") % ", ".join(refused)
        page.message_user(request, text, messages.ERROR)
        return back("")
    try:
        wanted.full_clean()
    except ValidationError as error:
        page.message_user(request, " ".join(error.messages), messages.ERROR)
    else:
        wanted.save()
        page.message_user(request, _("Kept as %s.") % wanted, messages.SUCCESS)
    return back(wanted.query)


def dropped(request: Any) -> HttpResponseRedirect:
    """Delete a view of the user; superusers may delete shared views of others too."""
    key = request.POST["drop"]
    mine = SavedView.objects.all().visible_to(request.user)
    if not request.user.is_superuser:
        mine = mine.filter(owner=request.user)
    mine.filter(pk=row_id(key)).delete()
    return back("")


def narrowing(query: str) -> str:
    """Re-encode a query string, without page and error flag."""
    found = QueryDict(query.lstrip("?"), mutable=True)
    for passing in ("p", "e"):
        found.pop(passing, None)
    return found.urlencode()


def back(query: str) -> HttpResponseRedirect:
    path = reverse("admin:accounts_auditevent_changelist")
    return HttpResponseRedirect(f"{path}?{query}" if query else path)
