"""/api/v1/tokens/: tokens are shown and revoked, never issued."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q
from django.utils import timezone
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import ListView, documented
from accounts.models import IssuedToken, TokenKind
from accounts.models.issued_tokens import REVOKED, STATES


class IssuedTokenSerializer(serializers.ModelSerializer[IssuedToken]):
    state = serializers.ChoiceField(choices=list(STATES), read_only=True)

    class Meta:
        model = IssuedToken
        fields = (
            "jti",
            "kind",
            "issued_via",
            "username",
            "client_id",
            "name",
            "scope",
            "state",
            "networks",
            "issued_at",
            "issued_to",
            "expires_at",
            "last_used_at",
            "last_used_from",
            "family",
        )
        read_only_fields = fields


@documented(tags=["tokens"])
class TokensView(ListView):
    """All tokens that Portico issued. The tokens themselves are not stored."""

    model = IssuedToken
    serializer_class = IssuedTokenSerializer
    lookup_field = "jti"
    lookup_value_converter = "str"
    filters: Filters = {
        "username": ("username", text(150)),
        "client_id": ("client_id", text()),
        "family": ("family", serializers.UUIDField()),
        "kind": ("kind", serializers.ChoiceField(choices=TokenKind.choices)),
        "state": ("state", serializers.ChoiceField(choices=list(STATES))),
    }

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        """The state follows from the revocation and the expiry."""
        state, now = conditions.pop("state", ""), timezone.now()
        if state == "revoked":
            # PostgreSQL would walk the keys, and find nothing in many newer tokens.
            rows, self.ordering = rows.annotate(newest=F("pk") + 0), ("-newest",)
        states = {
            "active": Q(revoked=False, expires_at__gt=now),
            "expired": Q(revoked=False, expires_at__lte=now),
            "revoked": REVOKED,
        }
        return rows.filter(states.get(state, Q()), **conditions)

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def revoke(self, request: Any, jti: str) -> Response:
        """Revoke this token from the next message on."""
        return self.act("revoke")

    @documented(request=None)
    @action(methods=["post"], detail=True, url_path="revoke-family")
    def revoke_family(self, request: Any, jti: str) -> Response:
        """Revoke all tokens of the same sign-in."""
        return self.act("revoke_families")
