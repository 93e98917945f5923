"""People, roles, clients, tokens and requests in the search of the admin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.search.bounded_lookups import (
    beginning_with,
    containing,
    each_once,
)
from accounts.admin_site.search.kinds import (
    PER_KIND,
    Result,
    RowKind,
    detail_line,
    search_kind,
)
from accounts.models import AuditEvent, IssuedToken, OAuthClient, Role, User

TOKEN_START = re.compile(r"[A-Za-z0-9_-]{4,64}", re.ASCII)
"""At least four characters: one character begins a sixteenth of all tokens."""
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}", re.ASCII)
"""The form of an id (mcp_bridge/http/request_id.py)."""
NAMES = ("username", "first_name", "last_name", "email")


@search_kind
class People(RowKind):
    """Accounts by the start of the user name, then by a part of any name."""

    model, label, rank = User, _("People"), 10

    def rows(self, word: str) -> Iterable[User]:
        users = User.objects.only(*NAMES, "is_active", "is_service_account")
        start = beginning_with(users, word, "username")
        return each_once(start, containing(users, word, *NAMES))

    def detail(self, row: User) -> str:
        kind = gettext("service account") if row.is_service_account else ""
        state = "" if row.is_active else gettext("inactive")
        return detail_line(row.get_full_name(), row.email, kind, state)


@search_kind
class Roles(RowKind):
    model, label, rank = Role, _("Roles"), 30

    def rows(self, word: str) -> Iterable[Role]:
        found: Iterable[Role] = containing(
            Role.objects.all(), word, "name", "description"
        )
        return found

    def detail(self, row: Role) -> str:
        return row.description


@search_kind
class Clients(RowKind):
    """Clients by id, then by a part of the name or id."""

    model, label, rank = OAuthClient, _("Clients"), 50

    def rows(self, word: str) -> Iterable[OAuthClient]:
        clients = OAuthClient.objects.only("name", "client_id", "blocked")
        exact = clients.filter(client_id=word)[:1]
        return each_once(exact, containing(clients, word, "name", "client_id"))

    def detail(self, row: OAuthClient) -> str:
        return detail_line(row.client_id, gettext("blocked") if row.blocked else "")


@search_kind
class Tokens(RowKind):
    """Tokens by the start of their id, which lists show."""

    model, label, rank = IssuedToken, _("Tokens"), 60

    def rows(self, word: str) -> Iterable[IssuedToken]:
        if not TOKEN_START.fullmatch(word):
            return []
        tokens = IssuedToken.objects.with_revoked()
        found: Iterable[IssuedToken] = beginning_with(tokens, word, "jti")
        return found

    def detail(self, row: IssuedToken) -> str:
        return detail_line(row.state_in_words, row.name)


@search_kind
class Requests(RowKind):
    """Audit events by the id of their request."""

    model, label, rank = AuditEvent, _("Requests"), 70

    def rows(self, word: str) -> Iterator[AuditEvent]:
        """The events of one request; without order, so the index of the id is used."""
        if not REQUEST_ID.fullmatch(word):
            return iter(())
        events = AuditEvent.objects.filter(request_id=word).defer("changes")
        found = events.order_by()[:PER_KIND]
        return iter(sorted(found, key=lambda event: (event.at, event.pk)))

    def detail(self, row: AuditEvent) -> str:
        decision = row.get_decision_display() if row.decision else ""
        moment = f"{timezone.localtime(row.at):%Y-%m-%d %H:%M:%S}"
        return detail_line(moment, row.actor, decision)

    def results(self, request: HttpRequest, word: str) -> list[Result]:
        """The events, and if there are several, the list of all of them."""
        found = super().results(request, word)
        if len(found) < 2:
            return found
        listing = reverse("admin:accounts_auditevent_changelist")
        url = f"{listing}?{urlencode({'request_id': word})}"
        return [
            *found[: PER_KIND - 1],
            Result(gettext("All events of this request"), url),
        ]
