"""The list of all tokens, from every grant and sign-in method."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.admin_site.base import ReadOnlyAdmin, badge, may
from accounts.admin_site.confirmation import (
    confirmation_page,
    revocable_tokens,
    revocation_effect,
)
from accounts.admin_site.filters.clients import client_cell, client_ids, name_clients
from accounts.admin_site.filters.period import PeriodFilter
from accounts.admin_site.filters.typed import TypedFilter
from accounts.admin_site.large_changelists import LargeChangelistMixin, UnsortedChoices
from accounts.admin_site.navigation.groups import Section
from accounts.models import IssuedToken, OAuthClient, TokenKind, User
from accounts.models.issued_tokens import STATES
from accounts.models.lookups import WithoutIndex

REASON = "revoked in the admin"
MAX_FAMILY_ROWS = 200


class ConditionFilter(admin.SimpleListFilter):
    """A filter that maps each choice to a condition."""

    choice_labels: tuple[tuple[str, Any], ...] = ()

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return self.choice_labels

    def condition(self, choice: str | None, now: datetime) -> Q | None:
        raise NotImplementedError

    def queryset(self, request: Any, queryset: Any) -> Any:
        condition = self.condition(self.value(), timezone.now())
        if condition is None:
            return queryset
        return queryset.alias(ends=WithoutIndex("expires_at")).filter(condition)


class StateFilter(ConditionFilter):
    title = _("state")
    parameter_name = "state"
    choice_labels = tuple(STATES.items())

    def condition(self, choice: str | None, now: datetime) -> Q | None:
        """A revoked token stays "revoked" after it expires."""
        return {
            "active": Q(revoked=False, ends__gt=now),
            "expired": Q(revoked=False, ends__lte=now),
            "revoked": Q(revoked=True),
        }.get(choice or "")


class UseFilter(ConditionFilter):
    """Tokens that are probably not needed."""

    title = _("use")
    parameter_name = "use"
    choice_labels = (
        ("never", _("never used")),
        ("30", _("unused for 30 days")),
        ("90", _("unused for 90 days")),
    )

    def condition(self, choice: str | None, now: datetime) -> Q | None:
        """Issued before the period and not used in it."""
        if choice == "never":
            return Q(last_used_at=None)
        if choice not in ("30", "90"):
            return None
        since = now - timedelta(days=int(choice))
        unused = Q(last_used_at__lt=since) | Q(last_used_at=None)
        return unused & Q(issued_at__lt=since)


class ExpiryFilter(ConditionFilter):
    title = _("expiry")
    parameter_name = "expiry"
    choice_labels = (
        ("hour", _("within an hour")),
        ("day", _("within a day")),
        ("week", _("within 7 days")),
        ("later", _("later")),
    )
    limits = {"hour": timedelta(hours=1), "day": timedelta(days=1)}

    def condition(self, choice: str | None, now: datetime) -> Q | None:
        week = now + timedelta(days=7)
        if choice == "later":
            return Q(ends__gt=week)
        if choice == "week":
            return Q(ends__gt=now, ends__lte=week)
        if choice not in self.limits:
            return None
        return Q(expires_at__gt=now, expires_at__lte=now + self.limits[choice])


class WhoseFilter(TypedFilter):
    """Filter by user and client."""

    title = _("user and client")
    inputs = (
        ("username", "text", _("User")),
        ("client_id", "text", _("Client (name or ID)")),
    )

    def condition(self, name: str, value: str) -> dict[str, Any]:
        if name == "client_id":
            return {"client_id__in": client_ids(value)}
        return {name: value}


class IssuedFilter(PeriodFilter):
    title = _("issued")
    ends = ("issued_at__gte", "issued_at__lte")


@admin.register(IssuedToken)
class IssuedTokenAdmin(LargeChangelistMixin, ReadOnlyAdmin[IssuedToken]):
    """Revoke one token, a selection, or all tokens that match the filter."""

    place = (Section.CLIENTS, 20)
    intro = _("All tokens that Portico issued. The tokens themselves are not stored.")
    nothing_yet = _(
        "No tokens yet. The portal's Connect page shows how to sign in with a client."
    )
    list_display = (
        "token",
        "username",
        "issued_via",
        "client",
        "state_shown",
        "last_used_at",
        "expires_at",
    )
    sortable_by = ("expires_at",)
    list_filter = (
        WhoseFilter,
        StateFilter,
        UseFilter,
        ExpiryFilter,
        ("kind", UnsortedChoices),
        "issued_via",
        IssuedFilter,
    )
    search_fields = ("jti",)
    search_help_text = _(
        "Enter the start of a token ID, a full username, or a client's name or ID."
    )
    search_lookups = ("jti__prefix", "username", "client_id")
    newest_first = ("-issued_at", "-id")
    fields = (
        "jti",
        "kind",
        "issued_via",
        "user",
        "username",
        "client",
        "id_of_client",
        "name",
        "scope",
        "state_shown",
        "issued_at",
        "issued_to",
        "expires_at",
        "last_used_at",
        "last_used_from",
        "redeemed_at",
        "family",
        "kid",
    )
    change_form_template = "admin/accounts/issuedtoken/change_form.html"
    actions = ("revoke", "revoke_families", "revoke_clients", "revoke_users")

    def get_queryset(self, request: HttpRequest) -> Any:
        return IssuedToken.objects.with_revoked().order_by(*self.newest_first)

    def prepare_rows(self, rows: list[Any]) -> None:
        name_clients(rows)

    def history_query(self, obj: Any) -> dict[str, str]:
        return {"token_id": obj.jti}

    @admin.display(description=_("client"))
    def client(self, obj: IssuedToken) -> str:
        return client_cell(obj)

    @admin.display(description=_("client ID"))
    def id_of_client(self, obj: IssuedToken) -> str:
        """Clients choose their names; the id is unique."""
        return obj.client_id or "-"

    @admin.display(description=_("token"), ordering="jti")
    def token(self, obj: IssuedToken) -> str:
        """Kind and first characters of the id; the token itself is not stored."""
        return f"{obj.get_kind_display()} {obj.jti[:8]}"

    @admin.display(description=_("state"))
    def state_shown(self, obj: IssuedToken) -> str:
        looks = {"active": "good", "revoked": "bad"}
        return badge(obj.state_in_words, looks.get(obj.state, ""))

    def change_view(
        self,
        request: Any,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """Add the token's family and the revocation buttons."""
        row = self.get_object(request, object_id)
        context = dict(extra_context or {})
        if row is not None:
            context |= {
                "generations": generations(row.family),
                "may_revoke": self.has_revoke_permission(request),
            }
        return super().change_view(request, object_id, form_url, context)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """The change permission means revoking; no user can edit tokens."""
        return may(request, "accounts.change_issuedtoken")

    @admin.action(description=_("Revoke the selected tokens"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: Any) -> Any:
        """Revoke the selected tokens from the next message on."""
        return self.end(
            request, IssuedToken.objects.filter(pk__in=primary_keys(queryset))
        )

    @admin.action(
        description=_("Revoke all tokens of the same sign-ins"),
        permissions=["revoke"],
    )
    def revoke_families(self, request: HttpRequest, queryset: Any) -> Any:
        families = queryset.order_by().values("family")
        return self.end(request, IssuedToken.objects.filter(family__in=families))

    @admin.action(
        description=_("Revoke all tokens of the same clients"), permissions=["revoke"]
    )
    def revoke_clients(self, request: HttpRequest, queryset: Any) -> Any:
        """Revoke all tokens of these clients, and their pending codes."""
        clients = list(queryset.order_by().values_list("client_id", flat=True))
        tokens = IssuedToken.objects.filter(client_id__in=set(clients))
        return self.end(request, tokens, self.end_clients)

    def end_clients(self, request: HttpRequest, tokens: Any) -> int:
        """Revoke tokens and their clients' pending codes. Returns the token count."""
        names = set(tokens.order_by().values_list("client_id", flat=True))
        clients, reason = OAuthClient.objects.filter(client_id__in=names), REASON
        clients.end_pending(actor=request.user, reason=reason)
        return self.end_tokens(request, tokens)

    @admin.action(
        description=_(
            "Revoke all tokens of the same users and sign out their browsers"
        ),
        permissions=["revoke"],
    )
    def revoke_users(self, request: HttpRequest, queryset: Any) -> Any:
        """End all access of those users; the actor's browser stays signed in."""
        users = queryset.order_by().values("user_id")
        tokens = IssuedToken.objects.filter(user_id__in=users)
        return self.end(request, tokens, self.end_users)

    def end_users(self, request: HttpRequest, tokens: Any) -> int:
        """End all access of the tokens' users. Returns the number of tokens."""
        users = User.objects.filter(pk__in=tokens.order_by().values("user_id"))
        actor, reason = request.user, REASON
        return int(
            users.revoke_all_sessions(actor=actor, reason=reason, keep=request)[0]
        )

    def end_tokens(self, request: HttpRequest, tokens: Any) -> int:
        """Returns how many of the tokens were live."""
        return int(tokens.revoke(actor=request.user, reason=REASON))

    def end(self, request: HttpRequest, tokens: Any, verb: Any = None) -> Any:
        """Confirm, call `verb` (default `end_tokens`), show how many were live."""
        tokens = revocable_tokens(self, request, tokens)
        page = confirmation_page(
            self, request, str(_("Revoke tokens")), revocation_effect(tokens)
        )
        if page is not None:
            return page
        count = (verb or self.end_tokens)(request, tokens)
        message = ngettext("%d token revoked.", "%d tokens revoked.", count) % count
        self.message_user(request, message, messages.SUCCESS)
        return None


def primary_keys(queryset: Any) -> Any:
    """Primary keys without the list's order and annotations."""
    return queryset.order_by().values("pk")


def generations(family: Any) -> list[tuple[IssuedToken | None, list[IssuedToken]]]:
    """Group a family: each refresh token with the access tokens issued with it.

    A family without refresh tokens has one group of access tokens.
    """
    rows = IssuedToken.objects.with_revoked().filter(family=family)
    tokens = list(rows.order_by("issued_at", "id")[:MAX_FAMILY_ROWS])
    refresh = [row for row in tokens if row.kind == TokenKind.REFRESH]
    groups: list[tuple[IssuedToken | None, list[IssuedToken]]] = [
        (row, []) for row in refresh
    ] or [(None, [])]
    for row in tokens:
        if row.kind != TokenKind.REFRESH:
            # A pair is issued together, but its access token may be slightly older.
            before = [
                r for r in refresh if r.issued_at <= row.issued_at + PAIR_TOLERANCE
            ]
            groups[max(len(before) - 1, 0)][1].append(row)
    return groups


PAIR_TOLERANCE = timedelta(seconds=1)
