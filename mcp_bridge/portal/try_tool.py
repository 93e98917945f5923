"""Try a tool: its documentation, a form for its arguments, and a real call.

The page calls /mcp itself, with a token that is valid for five minutes and for one
scope that gives access to the tool. So the rules, limits and the audit are those of
every other call.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.debug import sensitive_variables

from accounts.authentication.pages import Page
from accounts.authorization.role_grants import current_grants
from accounts.errors import OAuthError
from accounts.http.client_address import client_address
from accounts.models import IssuedVia, User
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.tokens.issue import issue_tokens
from accounts.tokens.principal import hypothetical_principal
from mcp_bridge.access.catalogue import Rule, read_catalogue
from mcp_bridge.access.decision import judge
from mcp_bridge.access.explain import with_every_scope
from mcp_bridge.access.narrowed_schemas import narrowed_schema
from mcp_bridge.models import Primitive, PrimitiveKind, own_scope
from mcp_bridge.portal.tool_form import schema_fields

LIFETIME = timedelta(minutes=5)


def usable_rule(user: User, name: str) -> Rule:
    """The rule of a tool that this user may call. Raises Http404 for every other."""
    rule = read_catalogue().get((PrimitiveKind.TOOL, name))
    me = with_every_scope(user)
    if rule is None or not judge(me, rule).allowed:
        raise Http404
    return rule


def narrow_scope(user: User, rule: Rule) -> str:
    """The one scope for a token that calls only what the tool's scope covers."""
    granted = sorted(rule.required & current_grants(user.pk)[1].keys())
    own = own_scope(rule.kind, rule.name)
    return own if own in granted else granted[0]


class TryToolView(Page):
    """GET ?name=: the tool's page. POST `tool`: a token for it, as JSON."""

    def get(self, request: HttpRequest) -> HttpResponse:
        rule = usable_rule(self.me, request.GET.get("name", ""))
        row = Primitive.objects.get(kind=PrimitiveKind.TOOL, name=rule.name)
        shown: dict[str, Any] = row.accepted or row.offered or {}
        schema = shown.get("inputSchema") or {}
        if rule.conditions:
            me = hypothetical_principal(self.me, {ACT_WITHIN_ROLES})
            schema = narrowed_schema(schema, me, rule)
        context = {
            "rule": rule,
            "title": shown.get("title") or row.title or rule.name,
            "description": shown.get("description") or row.description,
            "fields": schema_fields(schema),
            "url": settings.RESOURCE_URL,
        }
        return render(request, "portal/try_tool.html", context)

    @sensitive_variables("pair")
    def post(self, request: HttpRequest) -> HttpResponse:
        """400 with the reason if access ended meanwhile."""
        rule = usable_rule(self.me, request.POST.get("tool", ""))
        try:
            pair = issue_tokens(
                self.me,
                issued_via=IssuedVia.PORTAL,
                scope=narrow_scope(self.me, rule),
                address=client_address(request),
                refresh=False,
                lifetime=LIFETIME,
            )
        except OAuthError as error:
            return JsonResponse({"error": str(error)}, status=400)
        return JsonResponse({"token": pair.access, "expires_in": pair.expires_in})
