"""Access requests in the admin: approve with an end date, or decline with an answer."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import ActorFormMixin, ReadOnlyAdmin, changeable_rows, may
from accounts.admin_site.navigation.groups import Section
from accounts.audit.record import record
from accounts.authorization.delegation import objection_to_granting
from accounts.models import AccessRequest, User
from accounts.models.access_requests import RequestNotPossible, RequestState
from accounts.parsing.end_choice_field import DURATIONS
from accounts.parsing.end_of_day_field import END_OF_DAY
from accounts.parsing.moments import parse_future_moment

APPROVE_FOR = "_approve_for"
"""Name of the buttons that approve for one of DURATIONS."""


class DecisionForm(forms.ModelForm):  # type: ignore[type-arg]
    """Decide on one request: an end or a duration to approve it, and an answer."""

    actor: User

    class Meta:
        model = AccessRequest
        fields = ("given_until", "answer")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and self.instance.state == RequestState.OPEN:
            self.initial.setdefault("given_until", None)
            self.initial["given_until"] = self.instance.until

    def clean(self) -> dict[str, Any]:
        """Refuse an end in the past, and roles that the actor may not grant."""
        cleaned = super().clean() or {}
        if "_decline" in self.data:
            return cleaned
        chip = str(self.data.get(APPROVE_FOR, ""))
        if chip in dict(DURATIONS):
            cleaned["given_until"] = parse_future_moment(chip)
        until = cleaned.get("given_until")
        if until is not None and until <= timezone.now():
            raise ValidationError(
                {"given_until": _("This time is in the past. Choose a later one.")}
            )
        problem = objection_to_approving(self.actor, self.instance, until)
        if problem:
            raise ValidationError(problem)
        return cleaned


def objection_to_approving(
    actor: User, access_request: AccessRequest, until: Any
) -> str:
    """Why the actor may not approve the request; empty if they may."""
    return objection_to_granting(actor, access_request.user, access_request.role, until)


def objection_to_requested_end(actor: User, access_request: AccessRequest) -> str:
    """Why the actor may not approve the request as asked; empty if they may."""
    if access_request.until is not None and access_request.until <= timezone.now():
        return gettext(
            "the requested end date has passed. Open the request and "
            "choose a later one."
        )
    return objection_to_approving(actor, access_request, access_request.until)


@admin.register(AccessRequest)
class AccessRequestAdmin(ActorFormMixin[AccessRequest], ReadOnlyAdmin[AccessRequest]):
    """Users request roles in the portal; staff decide here."""

    place = (Section.ACCESS, 30)
    intro = _(
        "Users request roles in the portal and give a reason. "
        "Approve or decline their requests here."
    )
    nothing_yet = _(
        "No pending requests. Users request roles in the portal under My access."
    )
    form = DecisionForm
    formfield_overrides = {**ReadOnlyAdmin.formfield_overrides, **END_OF_DAY}
    list_display = ("user", "role", "reason", "until", "state", "asked_at")
    list_filter = ("state", "role")
    list_select_related = ("user", "role")
    search_fields = ("user__username", "reason")
    show_full_result_count = False
    request_fields = ("user", "role", "reason", "until", "asked_at", "state")
    decision_fields = ("decided_by", "decided_at", "given_until", "answer")
    actions = ("approve", "decline")
    change_form_template = "admin/accounts/accessrequest/change_form.html"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A decided request is read-only."""
        allowed = may(request, "accounts.change_accessrequest")
        return allowed and (obj is None or obj.state == RequestState.OPEN)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        """Offer buttons that approve for a time."""
        context = {**(extra_context or {}), "durations": DURATIONS[:3]}
        return super().change_view(request, object_id, form_url, context)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The request, with a form to decide while it is open, else the decision."""
        if self.has_change_permission(request, obj):
            return (*self.request_fields, "given_until", "answer")
        return (*self.request_fields, *self.decision_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.request_fields, "decided_by", "decided_at")

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Approve, or decline if the `_decline` button was pressed."""
        answer = form.cleaned_data.get("answer", "")
        until = None
        if "_decline" not in request.POST:
            until = form.cleaned_data.get("given_until")
        obj.refresh_from_db()
        try:
            if "_decline" in request.POST:
                self.decline_request(request, obj, answer)
            else:
                self.approve_request(request, obj, until, answer)
        except RequestNotPossible as error:
            self.message_user(request, str(error), messages.ERROR)

    def log_change(self, request: Any, obj: Any, message: Any) -> Any:
        """Store the decision in the row's history, not Django's list of fields."""
        return super().log_change(request, obj, str(obj.get_state_display()))

    @admin.action(
        description=_("Approve the selected requests"), permissions=["change"]
    )
    def approve(self, request: Any, queryset: Any) -> None:
        """Approve each request until the end it asks for."""
        for row in changeable_rows(
            self, request, queryset.open(), objection_to_requested_end
        ):
            try:
                self.approve_request(request, row, row.until, "")
            except RequestNotPossible as error:
                self.message_user(request, str(error), messages.ERROR)

    @admin.action(
        description=_("Decline the selected requests"), permissions=["change"]
    )
    def decline(self, request: Any, queryset: Any) -> None:
        for row in queryset.open():
            try:
                self.decline_request(request, row, "")
            except RequestNotPossible as error:
                self.message_user(request, str(error), messages.ERROR)

    def approve_request(self, request: Any, row: Any, until: Any, answer: str) -> None:
        with transaction.atomic():
            assignment, new = row.approve(
                actor=request.user, until=until, answer=answer
            )
            about = {"actor": request.user, "request": request, "reason": row.reason}
            ends = {
                "expires_at": [str(row.until or ""), str(assignment.expires_at or "")]
            }
            record("access.approved", object=row, changes=ends, **about)
            if new:
                record("role.granted", object=assignment, **about)
        self.message_user(request, _("%s: approved.") % row, messages.SUCCESS)

    def decline_request(self, request: Any, row: Any, answer: str) -> None:
        with transaction.atomic():
            row.decline(actor=request.user, answer=answer)
            record(
                "access.declined",
                actor=request.user,
                request=request,
                object=row,
                reason=answer,
            )
        self.message_user(request, _("%s: declined.") % row, messages.SUCCESS)

    def response_change(self, request: Any, obj: Any) -> Any:
        return self.response_post_save_change(request, obj)
