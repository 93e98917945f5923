"""The confirmation page of an admin action, with its effect in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.authorization.delegation import protected_users
from accounts.http.session_store import current_key
from accounts.models import IssuedToken
from accounts.models.browser_sessions import sessions_of
from accounts.models.issued_tokens import TokenQuerySet

LONGEST_REASON = 200
MOST_NAMED = 10
"""Rows that the page names."""


def reason_given(request: HttpRequest) -> str:
    """The reason that was entered on the confirmation page; empty if none."""
    return request.POST.get("reason", "").strip()[:LONGEST_REASON]


def confirmation_page(
    page: Any,
    request: HttpRequest,
    question: str,
    effect: str,
    about: Sequence[str] = (),
    asks_reason: bool = False,
) -> TemplateResponse | None:
    """The confirmation page, or None after the user confirmed.

    `about` names the rows; `reason_given` has the reason that it asks for.
    """
    if request.POST.get("confirmed") == "yes":
        return None
    context = {
        **page.admin_site.each_context(request),
        "title": question,
        "effect": effect,
        "about": about[:MOST_NAMED],
        "more": max(len(about) - MOST_NAMED, 0),
        "longest_reason": LONGEST_REASON if asks_reason else 0,
        "action": request.POST.get("action", ""),
        "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "here": request.get_full_path(),
        "parent": (request.get_full_path(), page.opts.verbose_name_plural),
    }
    return TemplateResponse(request, "admin/confirm.html", context)


def revocable_tokens(page: Any, request: Any, tokens: TokenQuerySet) -> TokenQuerySet:
    """The tokens that the actor may revoke; a message counts the others."""
    others = protected_users(request.user)
    if request.user.is_superuser:
        return tokens
    excluded = tokens.filter(user__in=others).live().order_by().count()
    if excluded:
        message = ngettext(
            "%d token belongs to a user with more permissions than "
            "you. Ask a superuser.",
            "%d tokens belong to users with more permissions than you. "
            "Ask a superuser.",
            excluded,
        )
        page.message_user(request, message % excluded, messages.WARNING)
    return tokens.exclude(user__in=others)


def signout_effect(users: Any, keep: str) -> str:
    """The effect of signing these accounts out, as text with counts."""
    tokens = revocation_effect(IssuedToken.objects.filter(user__in=users))
    count = sessions_of(users, keep).count()
    if not count:
        return tokens
    message = ngettext(
        "This signs out %d browser.", "This signs out %d browsers.", count
    )
    return f"{tokens} {message % count}"


def own_session(request: HttpRequest) -> str:
    """The stored key of this request's session; ending it would lose the response."""
    return current_key(request)


def revocation_effect(tokens: Any) -> str:
    """The effect of revoking these tokens, such as "12 live tokens of 3 people ..."."""
    counts = tokens.effect()
    if not counts["tokens"]:
        return _("No token is active, so none is revoked.")
    parts = {
        "tokens": ngettext("%d active token", "%d active tokens", counts["tokens"]),
        "people": ngettext("%d person", "%d people", counts["people"]),
        "clients": ngettext("%d client", "%d clients", counts["clients"]),
    }
    words = {name: text % counts[name] for name, text in parts.items()}
    return (
        _(
            "This revokes %(tokens)s for %(people)s (%(clients)s). "
            "They stop working immediately."
        )
        % words
    )
