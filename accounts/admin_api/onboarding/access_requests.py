"""/api/v1/access-requests/: people request roles in the portal, staff decide."""

from __future__ import annotations

from typing import Any

from django.contrib.messages import ERROR
from django.db import transaction
from django.http import QueryDict
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.admin_api.admin_forms import filled_form, save
from accounts.admin_api.pages import Filters, text
from accounts.admin_api.problems import Conflict
from accounts.admin_api.views import NOT_CHANGED, ListView, documented
from accounts.authorization.delegation import NotAllowed
from accounts.models import AccessRequest
from accounts.models.access_requests import RequestState

DECLINE = "_decline"
"""Name of the button in the admin's form."""


class AccessRequestSerializer(serializers.ModelSerializer[AccessRequest]):
    user = serializers.CharField(read_only=True, help_text="The username.")
    role = serializers.CharField(read_only=True)
    decided_by = serializers.CharField(read_only=True, allow_null=True)

    class Meta:
        model = AccessRequest
        fields = (
            "id",
            "user",
            "role",
            "reason",
            "until",
            "state",
            "asked_at",
            "decided_by",
            "decided_at",
            "given_until",
            "answer",
        )
        read_only_fields = fields


class DeclineSerializer(serializers.Serializer[Any]):
    answer = serializers.CharField(
        required=False, allow_blank=True, max_length=255, help_text="For the person."
    )


class ApproveSerializer(DeclineSerializer):
    given_until = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="When the role ends; null means no end. Left out: as requested.",
    )


@documented(tags=["access-requests"])
class AccessRequestsView(ListView):
    """Requests of people for roles."""

    model = AccessRequest
    serializer_class = AccessRequestSerializer
    filters: Filters = {
        "user": ("user__username", text(150)),
        "role": ("role__name", text(100)),
        "state": ("state", serializers.ChoiceField(choices=RequestState.choices)),
    }

    def get_queryset(self) -> Any:
        return super().get_queryset().select_related("user", "role", "decided_by")

    @documented(request=ApproveSerializer)
    @action(methods=["post"], detail=True)
    def approve(self, request: Any, pk: int) -> Response:
        """Give the role."""
        return self.decide(self.asked(ApproveSerializer))

    @documented(request=DeclineSerializer)
    @action(methods=["post"], detail=True)
    def decline(self, request: Any, pk: int) -> Response:
        """Decline it, with an answer."""
        return self.decide(self.asked(DeclineSerializer), DECLINE)

    def decide(self, given: dict[str, Any], button: str = "_save") -> Response:
        """Save the admin's form as if this button was pressed."""
        with transaction.atomic():
            row = self.locked()
            if not self.page.has_change_permission(self.acting):
                raise NotAllowed(NOT_CHANGED)
            if row.state != RequestState.OPEN:
                raise Conflict(f"This request is not open: it is {row.state}.")
            self.acting.POST = QueryDict(f"{button}=1")
            form = filled_form(self.page, self.acting, given, row)
            form.data[button] = "1"
            save(self.page, self.acting, form, change=True)
            said = self.acting._messages.collected
            refusals = [str(one.message) for one in said if one.level >= ERROR]
            if refusals:
                raise Conflict(" ".join(refusals))
        return self.shown(self.get_object())
