"""/api/v1/people/."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from accounts.admin_api.admin_forms import filled_form, save
from accounts.admin_api.onboarding.invitations import NO_MAIL
from accounts.admin_api.pages import Filters, NamesField, text
from accounts.admin_api.views import AddMixin, documented
from accounts.authentication.invitations import mail_configured, mail_invitation
from accounts.authorization.delegation import outranks
from accounts.authorization.invitations import Issued, invitation_url, invite
from accounts.models import User

AT_FIRST = ("username",)
"""Fields of the admin's form for a new account; the others are saved after it."""
NOT_NEW = "Only for a new account. Use invitations/ for others."
MORE_RIGHTS = "This account has more permissions than yours. Ask a superuser."


class PersonSerializer(serializers.ModelSerializer[User]):
    """An account. It is created without a password."""

    roles = serializers.SerializerMethodField()
    groups = NamesField(required=False, help_text="Staff groups, by name.")
    end_own_access = serializers.BooleanField(
        write_only=True,
        required=False,
        help_text="Needed to take away one's own administration.",
    )
    invite = serializers.BooleanField(
        write_only=True,
        required=False,
        help_text="Only for a new account: make a link to set a password or a passkey.",
    )
    mail = serializers.BooleanField(
        write_only=True, required=False, help_text="Send the link to the address."
    )

    class Meta:
        model = User
        fields = (
            "id",
            "username",
            "email",
            "email_set_by_admin",
            "first_name",
            "last_name",
            "is_active",
            "is_service_account",
            "is_staff",
            "is_superuser",
            "groups",
            "roles",
            "last_login",
            "date_joined",
            "end_own_access",
            "invite",
            "mail",
        )
        read_only_fields = ("last_login", "date_joined")

    def get_roles(self, row: User) -> list[str]:
        """Names of the unexpired roles."""
        held = row.role_assignments.all()
        return sorted(one.role.name for one in held if not one.expired)


class NewPersonSerializer(PersonSerializer):
    """With the link of the invitation, once, if one was asked for."""

    invitation_url = serializers.URLField(required=False)

    class Meta(PersonSerializer.Meta):
        fields: Any = (*PersonSerializer.Meta.fields, "invitation_url")


@documented(tags=["people"])
class PeopleView(AddMixin):
    """People and programs."""

    issued: Issued | None = None

    model = User
    serializer_class = PersonSerializer
    filters: Filters = {
        "username": ("username", text(150)),
        "email": ("email__iexact", text()),
        "role": ("role_assignments__role__name", text(100)),
        "is_active": ("is_active", serializers.BooleanField()),
        "is_staff": ("is_staff", serializers.BooleanField()),
        "is_service_account": ("is_service_account", serializers.BooleanField()),
    }

    def get_queryset(self) -> Any:
        return super().get_queryset().prefetch_related("groups")

    def given(self, partial: bool) -> dict[str, Any]:
        """Invitations are for new accounts; a link that exists is never sent again."""
        given = super().given(partial)
        wanted = {name: given.pop(name, False) for name in ("invite", "mail")}
        if partial and any(wanted.values()):
            raise ValidationError({"invite": NOT_NEW})
        if wanted["mail"] and not (wanted["invite"] and given.get("email")):
            raise ValidationError({"mail": "It needs invite and email."})
        if wanted["mail"] and not mail_configured():
            raise ValidationError({"mail": NO_MAIL})
        self.wanted = wanted
        return given

    @documented(responses={201: NewPersonSerializer})
    def create(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Add an account; with `invite`, the response has the link, once."""
        return super().create(request, *args, **kwargs)

    def added(self, row: Any, **once: str) -> Response:
        if self.issued is not None:
            once["invitation_url"] = invitation_url(self.issued[1])
            if self.wanted["mail"]:
                mail_invitation(self.issued)
        return super().added(row, **once)

    def add(self, given: dict[str, Any]) -> User:
        """As in the admin: the name first, then the rest. There is no password."""
        first = {name: given.pop(name) for name in AT_FIRST if name in given}
        form = filled_form(
            self.page, self.acting, {**first, "usable_password": "false"}
        )
        person: User = save(self.page, self.acting, form, change=False)
        if given:
            person = User.objects.get(pk=person.pk)
            self.change(person, given)
        if self.wanted["invite"]:
            person = User.objects.get(pk=person.pk)
            self.issued = invite(person, (), None, actor=self.acting.user)
        return person

    def objection(self, row: User) -> str:
        actor: Any = self.request.user
        return MORE_RIGHTS if outranks(actor, row) else ""

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def deactivate(self, request: Any, pk: int) -> Response:
        """Deactivate the account and end its access."""
        return self.act("deactivate")

    @documented(request=None)
    @action(methods=["post"], detail=True, url_path="end-access")
    def end_access(self, request: Any, pk: int) -> Response:
        """Revoke all tokens and consents, and sign out all browsers."""
        return self.act("revoke_tokens")

    @documented(request=None)
    @action(methods=["post"], detail=True)
    def unlock(self, request: Any, pk: int) -> Response:
        """Reset the failed sign-ins."""
        return self.act("unlock")
