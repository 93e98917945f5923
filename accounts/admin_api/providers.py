"""/api/v1/providers/: sign-in providers. The client secret can only be written."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.admin_api.admin_forms import InlineRows
from accounts.admin_api.pages import Filters, text
from accounts.admin_api.views import AddMixin, DeleteMixin, documented
from accounts.models import ClaimRule, SignInProvider


class ClaimRuleSerializer(serializers.Serializer[ClaimRule]):
    """Users whose claim has this value get this role."""

    id = serializers.IntegerField(
        required=False, help_text="Of a present rule, to change it."
    )
    claim = serializers.CharField(max_length=100)
    value = serializers.CharField(max_length=255)
    role = serializers.CharField(max_length=100)


class ProviderSerializer(serializers.ModelSerializer[SignInProvider]):
    """`claim_rules` is the whole list: rules that are left out are deleted."""

    client_secret = serializers.CharField(
        write_only=True, required=False, max_length=2000
    )
    claim_rules = ClaimRuleSerializer(source="rules", many=True, required=False)

    class Meta:
        model = SignInProvider
        fields = (
            "id",
            "name",
            "slug",
            "issuer",
            "client_id",
            "client_secret",
            "enabled",
            "sign_up",
            "link_by_email",
            "roles_last",
            "claim_rules",
        )
        extra_kwargs: dict[str, Any] = {"slug": {"validators": []}}


def shown_claim_rule(rule: ClaimRule) -> dict[str, Any]:
    return {"claim": rule.claim, "value": rule.value, "role": rule.role.name}


@documented(tags=["providers"])
class ProvidersView(AddMixin, DeleteMixin):
    """OpenID providers with which people sign in. Only superusers change them."""

    model = SignInProvider
    serializer_class = ProviderSerializer
    filters: Filters = {
        "slug": ("slug", text(50)),
        "enabled": ("enabled", serializers.BooleanField()),
    }
    inline_rows = {"rules": InlineRows(ClaimRule, shown_claim_rule)}

    def get_queryset(self) -> Any:
        return super().get_queryset().prefetch_related("rules__role")
