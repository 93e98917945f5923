"""Portal pages about MCP: connect a client, available tools, refusals."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.authentication.pages import Page
from accounts.models import AuditEvent, IssuedToken, OAuthClient, User
from accounts.models.issued_tokens import OWN_CLIENT
from mcp_bridge.access.catalogue import Rule, read_catalogue
from mcp_bridge.access.decision import Reason, judge
from mcp_bridge.access.explain import decision_in_words, with_every_scope
from mcp_bridge.models import Primitive, PrimitiveKind
from mcp_bridge.portal.client_setup import Snippet, slug_of, snippets


class ConnectView(Page):
    """Setup instructions; the page polls StatusView until a client connects."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """`since` is the time after which a call counts as the first."""
        used, shown = last_use_by_slug(self.me), snippets(settings.RESOURCE_URL)
        context = {
            "url": settings.RESOURCE_URL,
            "snippets": [(snippet, used.get(snippet.slug)) for snippet in shown],
            "opened": first_to_open(shown, used),
            "since": int(timezone.now().timestamp()),
            "connected": connected_in_words(allowed_calls(self.me).first()),
        }
        return render(request, "portal/connect.html", context)


class StatusView(Page):
    """GET ?since=EPOCH: whether a client of this user was allowed a call since then."""

    def get(self, request: HttpRequest) -> JsonResponse:
        text = request.GET.get("since", "")
        since = int(text) if re.fullmatch("[0-9]{1,11}", text) else 0
        mine = allowed_calls(self.me)
        last = mine.filter(at__gte=datetime.fromtimestamp(since, UTC)).first()
        status = {"connected": last is not None, "what": last.object if last else ""}
        return JsonResponse(status)


def last_use_by_slug(user: User) -> dict[str, datetime]:
    """Slug -> when this user's client of that kind last used a token."""
    tokens = IssuedToken.objects.filter(user=user, last_used_at__isnull=False)
    rows = tokens.order_by().values_list("client_id").annotate(Max("last_used_at"))
    times = dict(rows)
    names = OAuthClient.objects.all().names_of(times)
    found: dict[str, datetime] = {}
    for client_id, name in names.items():
        slug = slug_of(name)
        if slug:
            found[slug] = max(times[client_id], found.get(slug, times[client_id]))
    return found


def first_to_open(shown: list[Snippet], used: dict[str, datetime]) -> str:
    """The slug of the client used last; the first client if none was used."""
    return max(used, key=lambda slug: used[slug]) if used else shown[0].slug


def allowed_calls(user: User) -> QuerySet[AuditEvent]:
    """The messages that this user was allowed, newest first."""
    allowed = AuditEvent.Verdict.ALLOWED
    # The name has an index; the index of the id has denials only.
    mine = AuditEvent.objects.filter(actor=user.username, actor_id=user.pk)
    return mine.filter(decision=allowed)


def connected_in_words(last: AuditEvent | None) -> str:
    """Which client called last, what and when; empty if none ever did."""
    if last is None:
        return ""
    client = OAuthClient.objects.all().name_of(last.client_id)
    values = {"client": client, "ago": naturaltime(last.at), "what": last.object}
    if client == OWN_CLIENT:
        return _("Connected with a token, last call %(ago)s (%(what)s)") % values
    return _("Connected: %(client)s, last call %(ago)s (%(what)s)") % values


def refusal_in_words(event: AuditEvent) -> str:
    """The reason as text; it does not reveal whether a hidden primitive exists."""
    if event.reason == Reason.TOKEN_LACKS_SCOPE:
        return _("The token lacks a required scope: %s.") % decision_in_words(event.via)
    if event.reason in (Reason.UNKNOWN_METHOD, Reason.MALFORMED):
        return _("The message was invalid.")
    return _("Your roles do not include this. Request a role under My access.")


def once_each(denied: QuerySet[AuditEvent]) -> list[AuditEvent]:
    """The newest event about each object, of the newest hundred; at most ten."""
    newest: dict[tuple[str, str], AuditEvent] = {}
    for event in denied[:100]:
        newest.setdefault((event.object, event.reason), event)
    return list(newest.values())[:10]


def with_descriptions(rules: list[Rule]) -> list[tuple[Rule, str, str]]:
    """(rule, kind, first paragraph of the description), by kind and name."""
    rows = Primitive.objects.values_list("kind", "name", "description")
    texts = {(kind, name): text for kind, name, text in rows}
    kinds = PrimitiveKind.values
    return [
        (
            rule,
            str(PrimitiveKind(rule.kind).label),
            texts.get((rule.kind, rule.name), "").strip().partition("\n\n")[0],
        )
        for rule in sorted(rules, key=lambda r: (kinds.index(r.kind), r.name))
    ]


class HomeView(Page):
    """Roles, available primitives and latest refusals of the user."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Decide by the same rule as a message."""
        me = with_every_scope(self.me)
        rules = read_catalogue().values()
        mine = [rule for rule in rules if judge(me, rule).allowed]
        denied = AuditEvent.objects.filter(
            actor_id=self.me.pk, decision=AuditEvent.Verdict.DENIED
        )
        refusals = [(event, refusal_in_words(event)) for event in once_each(denied)]
        context = {
            "roles": me.roles,
            "rules": with_descriptions(mine),
            "refusals": refusals,
        }
        return render(request, "portal/home.html", context)
