"""Saved views: named searches of the audit, above its list."""

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
    """Those that this member of staff sees."""
    return list(SavedView.objects.all().seen_by(request.user)[:50])


def keep(page: Any, request: Any, may_share: bool) -> HttpResponseRedirect:
    """POST `drop=ID` drops one of one's own; `name` and `query` keep one."""
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
    """One of one's own is gone; a superuser drops shared ones too."""
    key = request.POST["drop"]
    mine = SavedView.objects.all().seen_by(request.user)
    if not request.user.is_superuser:
        mine = mine.filter(owner=request.user)
    mine.filter(pk=row_id(key)).delete()
    return back("")


def narrowing(query: str) -> str:
    """A query string without page and error, encoded anew: nothing but parameters."""
    found = QueryDict(query.lstrip("?"), mutable=True)
    for passing in ("p", "e"):
        found.pop(passing, None)
    return found.urlencode()


def back(query: str) -> HttpResponseRedirect:
    """To the list."""
    path = reverse("admin:accounts_auditevent_changelist")
    return HttpResponseRedirect(f"{path}?{query}" if query else path)
