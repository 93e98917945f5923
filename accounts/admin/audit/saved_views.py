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


def visible_views(request: Any) -> list[SavedView]:
    """Views that this user owns or that are shared; at most 50."""
    return list(SavedView.objects.all().visible_to(request.user)[:50])


def save_view(page: Any, request: Any, may_share: bool) -> HttpResponseRedirect:
    """POST `drop=ID` deletes one of the user's views; `name` and `query` save one."""
    if "drop" in request.POST:
        return delete_view(request)
    view = SavedView(
        owner=request.user,
        name=request.POST.get("name", "").strip(),
        query=filter_parameters(request.POST.get("query", "")),
        shared=may_share and "shared" in request.POST,
    )
    undeclared = page.refused_lookups(QueryDict(view.query), request)
    if undeclared:
        text = _("The audit cannot be filtered by %s.") % ", ".join(undeclared)
        page.message_user(request, text, messages.ERROR)
        return redirect_to_list("")
    try:
        view.full_clean()
    except ValidationError as error:
        page.message_user(request, " ".join(error.messages), messages.ERROR)
    else:
        view.save()
        page.message_user(request, _("View saved as %s.") % view, messages.SUCCESS)
    return redirect_to_list(view.query)


def delete_view(request: Any) -> HttpResponseRedirect:
    """Delete a view of the user; superusers may delete shared views of others too."""
    key = request.POST["drop"]
    mine = SavedView.objects.all().visible_to(request.user)
    if not request.user.is_superuser:
        mine = mine.filter(owner=request.user)
    mine.filter(pk=row_id(key)).delete()
    return redirect_to_list("")


def filter_parameters(query: str) -> str:
    """Re-encode a query string, without page and error flag."""
    parameters = QueryDict(query.lstrip("?"), mutable=True)
    for name in ("p", "e"):
        parameters.pop(name, None)
    return parameters.urlencode()


def redirect_to_list(query: str) -> HttpResponseRedirect:
    path = reverse("admin:accounts_auditevent_changelist")
    return HttpResponseRedirect(f"{path}?{query}" if query else path)
