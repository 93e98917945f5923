"""/api/v1/invitations/: a link is in the response that makes it, never again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from accounts.admin.people.invitations import (
    InviteForm,
    objection_to_changing_invitation,
    objection_to_resending,
)
from accounts.admin_api.admin_forms import fill
from accounts.admin_api.pages import Filters, text
from accounts.admin_api.problems import FormRefused, checked_values
from accounts.admin_api.views import ListView, NoFields, documented
from accounts.authentication.invitations import mail_configured, mail_invitation
from accounts.authorization.delegation import NotAllowed
from accounts.authorization.invitations import (
    Issued,
    invitation_url,
    withdraw_invitation,
)
from accounts.models import Invitation, Role
from accounts.models.onboarding.invitations import InvitationState

MOST = 100
"""Invitations of one request."""
NOT_INVITING = "You may view invitations, but not invite people."
NO_MAIL = "Portico has no mail server: set EMAIL_HOST, or leave mail out."
NO_ADDRESS = "The account has no mail address. Send email, or leave mail out."


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    user = serializers.CharField(read_only=True, help_text="The username.")
    email = serializers.CharField(source="user.email", read_only=True)
    state = serializers.ChoiceField(choices=InvitationState.choices, read_only=True)
    roles = serializers.SerializerMethodField()
    mailed_to = serializers.CharField(read_only=True, help_text="Empty if it was not.")

    class Meta:
        model = Invitation
        fields = (
            "id",
            "user",
            "email",
            "state",
            "roles",
            "inviter",
            "sent_at",
            "mailed_to",
            "expires_at",
            "accepted_at",
            "accepted_from",
            "withdrawn_at",
        )
        read_only_fields = fields

    def get_roles(self, row: Invitation) -> list[str]:
        """Names of the roles that the person has now."""
        held = row.user.role_assignments.all()
        return sorted(one.role.name for one in held if not one.expired)


class IssuedInvitationSerializer(InvitationSerializer):
    """An invitation with its link, which no other response has."""

    url = serializers.URLField(read_only=True)

    class Meta(InvitationSerializer.Meta):
        fields: Any = (*InvitationSerializer.Meta.fields, "url")


class ResendSerializer(serializers.Serializer[Any]):
    mail = serializers.BooleanField(
        default=False, help_text="Send the link to the account's address."
    )


class InviteSerializer(ResendSerializer):
    """A person, new or without a way to sign in yet."""

    username = serializers.CharField(max_length=150)
    email = serializers.EmailField(required=False, allow_blank=True)
    roles = serializers.ListField(
        child=text(100), required=False, max_length=100, help_text="Names of roles."
    )
    until = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="When the roles end; null means no end.",
    )


class InviteManySerializer(serializers.Serializer[Any]):
    """All of them are invited, or none."""

    invitations = serializers.ListField(
        child=serializers.DictField(),
        min_length=1,
        max_length=MOST,
        help_text="Each as for one invitation.",
    )


class IssuedManySerializer(serializers.Serializer[Any]):
    results = IssuedInvitationSerializer(many=True)


def invite_form(actor: Any, given: dict[str, Any]) -> InviteForm:
    """The admin's form. Which roles the actor may give is checked when it is saved.

    Raises NotAllowed for fields that this actor does not have, FormRefused.
    """
    form: Any = InviteForm(actor, {})
    if "roles" in form.fields:
        form.fields["roles"].queryset = Role.objects.all()
    mail = given.pop("mail", False)
    fill(form, given)
    if form.is_valid() and mail:
        refuse_mail(form)
    if form.errors:
        raise FormRefused(form)
    form.cleaned_data["mail"] = mail
    invited: InviteForm = form
    return invited


def refuse_mail(form: InviteForm) -> None:
    """Add the reason why the link cannot be mailed."""
    if not mail_configured():
        form.add_error(None, NO_MAIL)
    elif not form.user.email:
        form.add_error("email", NO_ADDRESS)


@documented(tags=["invitations"])
class InvitationsView(ListView):
    """Links with which people choose a password or a passkey."""

    model = Invitation
    serializer_class = InvitationSerializer
    filters: Filters = {
        "user": ("user__username", text(150)),
        "inviter": ("inviter", text(150)),
        "state": ("state", serializers.ChoiceField(choices=InvitationState.choices)),
    }

    def narrow(self, rows: Any, conditions: dict[str, Any]) -> Any:
        """The state follows from the dates."""
        state = conditions.pop("state", "")
        rows = rows.filter(**conditions)
        return rows.in_state(state) if state else rows

    @documented(request=InviteSerializer, responses={201: IssuedInvitationSerializer})
    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Invite a person; the response has the link, once.

        Again for the same person: a new link replaces the one that was not used yet.
        """
        given = self.asked(InviteSerializer)
        self.check_may_invite()
        form = invite_form(request.user, given)
        return self.issued([form], many=False)

    @documented(request=InviteManySerializer, responses={201: IssuedManySerializer})
    @action(methods=["post"], detail=False)
    def batch(self, request: Any) -> Response:
        """Invite up to 100 people, all or none."""
        given = self.asked(InviteManySerializer)["invitations"]
        self.check_may_invite()
        forms: list[InviteForm] = []
        errors: dict[str, Any] = {}
        for number, one in enumerate(given):
            try:
                forms.append(self.form_of(one))
            except (ValidationError, FormRefused) as error:
                errors[str(number)] = error_details(error)
        names = [form.user.username.casefold() for form in forms]
        for number, name in enumerate(names if not errors else ()):
            if name in names[:number]:
                errors[str(number)] = {
                    "username": ["This person is in the list twice."]
                }
        if errors:
            raise ValidationError({"invitations": errors})
        return self.issued(forms, many=True)

    def form_of(self, one: dict[str, Any]) -> InviteForm:
        """Raises ValidationError, FormRefused, NotAllowed."""
        return invite_form(
            self.request.user, checked_values(InviteSerializer(data=one))
        )

    def check_may_invite(self) -> None:
        """Raises Http404, NotAllowed."""
        self.get_queryset()
        if not self.page.has_invite_permission(self.acting):
            raise NotAllowed(NOT_INVITING)

    def issued(self, forms: Sequence[InviteForm], *, many: bool) -> Response:
        """Save the forms together, then mail; the response has the links."""
        with transaction.atomic():
            issued = [form.save() for form in forms]
        for form, one in zip(forms, issued, strict=True):
            if form.cleaned_data["mail"]:
                mail_invitation(one)
        shown = self.with_links(issued)
        body = {"results": shown} if many else shown[0]
        return Response(body, status=status.HTTP_201_CREATED)

    def with_links(self, issued: Iterable[Issued]) -> list[dict[str, Any]]:
        return [
            {**self.get_serializer(row).data, "url": invitation_url(raw)}
            for row, raw in issued
        ]

    @documented(request=ResendSerializer, responses=IssuedInvitationSerializer)
    @action(methods=["post"], detail=True)
    def resend(self, request: Any, pk: int) -> Response:
        """Make a new link, which replaces the earlier one."""
        mail = self.asked(ResendSerializer)["mail"]
        row = self.get_object()
        self.check_may_invite()
        if objection := objection_to_resending(request.user, row):
            raise NotAllowed(objection)
        if mail and not (row.user.email and mail_configured()):
            raise ValidationError(
                {"mail": NO_ADDRESS if mail_configured() else NO_MAIL}
            )
        issued = Invitation.objects.issue(row.user, actor=request.user)
        if mail:
            mail_invitation(issued)
        return Response(self.with_links([issued])[0])

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def withdraw(self, request: Any, pk: int) -> Response:
        """End the link, and an account that was only made for it."""
        self.asked(NoFields)
        row = self.get_object()
        self.check_may_invite()
        if row.state != InvitationState.WITHDRAWN:
            if objection := objection_to_changing_invitation(request.user, row):
                raise NotAllowed(objection)
            withdraw_invitation(row, actor=request.user)
        return self.shown(self.get_object())


def error_details(error: ValidationError | FormRefused) -> Any:
    """Field -> its errors."""
    if isinstance(error, ValidationError):
        return error.detail
    return {one["field"] or "non_field_errors": [one["detail"]] for one in error.errors}
