"""The one list of tokens, whatever door they came through."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin.base import ReadOnly, may
from accounts.models import IssuedToken
from accounts.site import Section

REASON = "revoked in the admin"


class StateFilter(admin.SimpleListFilter):
    """active, expired or revoked."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, Any]]:
        """The three states."""
        return [
            ("active", _("active")),
            ("expired", _("expired")),
            ("revoked", _("revoked")),
        ]

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Narrow to the chosen one."""
        now = timezone.now()
        chosen: dict[str | None, Q] = {
            "active": Q(revoked=False, expires_at__gt=now),
            "expired": Q(revoked=False, expires_at__lte=now),
            "revoked": Q(revoked=True),
        }
        condition = chosen.get(self.value())
        return queryset if condition is None else queryset.filter(condition)


@admin.register(IssuedToken)
class IssuedTokenAdmin(ReadOnly[IssuedToken]):
    """Look, filter, revoke: one, a selection, or all that match the filter."""

    place = (Section.TOKENS, 10)
    intro = _(
        "Every token that was issued, by whatever way. The token itself is stored "
        "nowhere."
    )
    nothing_yet = _(
        "Nobody has signed in with a client yet. The portal's Connect page shows how."
    )
    list_display = (
        "token",
        "username",
        "door",
        "client_id",
        "state_shown",
        "last_used_at",
        "expires_at",
    )
    list_filter = (StateFilter, "kind", "door", "client_id", "expires_at")
    search_fields = ("jti", "username", "client_id", "last_used_from")
    date_hierarchy = "issued_at"
    show_full_result_count = False
    actions = ("revoke", "revoke_families", "revoke_clients", "revoke_users")

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the state."""
        return IssuedToken.objects.with_revoked().order_by("-issued_at", "-id")

    @admin.display(description=_("token"), ordering="jti")
    def token(self, obj: IssuedToken) -> str:
        """Kind and the beginning of the id: the token itself is stored nowhere."""
        return f"{obj.get_kind_display()} {obj.jti[:8]}"

    @admin.display(description=_("state"))
    def state_shown(self, obj: IssuedToken) -> str:
        """active, expired or revoked."""
        return obj.state

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Those who may change tokens may end them; nobody edits them."""
        return may(request, "accounts.change_issuedtoken")

    @admin.action(description=_("Revoke the selected tokens"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: Any) -> None:
        """End the selected, from the next message on."""
        self.end(request, IssuedToken.objects.filter(pk__in=queryset.values("pk")))

    @admin.action(
        description=_("Revoke all that grew from the same sign-ins"),
        permissions=["revoke"],
    )
    def revoke_families(self, request: HttpRequest, queryset: Any) -> None:
        """End whole refresh families."""
        families = queryset.values("family")
        self.end(request, IssuedToken.objects.filter(family__in=families))

    @admin.action(
        description=_("Revoke all tokens of the same clients"), permissions=["revoke"]
    )
    def revoke_clients(self, request: HttpRequest, queryset: Any) -> None:
        """End all of those clients."""
        clients = queryset.values("client_id")
        self.end(request, IssuedToken.objects.filter(client_id__in=clients))

    @admin.action(
        description=_("Revoke all tokens of the same users"), permissions=["revoke"]
    )
    def revoke_users(self, request: HttpRequest, queryset: Any) -> None:
        """End all of those users."""
        users = queryset.values("user_id")
        self.end(request, IssuedToken.objects.filter(user_id__in=users))

    def end(self, request: HttpRequest, tokens: Any) -> None:
        """Revoke and say how many were live."""
        ended = tokens.revoke(actor=request.user, reason=REASON)
        told = ngettext("%d token revoked.", "%d tokens revoked.", ended) % ended
        self.message_user(request, told, messages.SUCCESS)
