"""Invitations in the admin: the form, the links (shown once), the list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_variables

from accounts.admin_site.base import ReadOnlyAdmin, badge, changeable_rows, may, names
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, row_link, site_page
from accounts.authentication.invitations import mail_configured, mail_invitation
from accounts.authorization.delegation import (
    NotAllowed,
    objection_to_removing,
    outranks,
)
from accounts.authorization.invitations import (
    Issued,
    invitation_url,
    invite,
    objection_to_inviting,
    withdraw_invitation,
)
from accounts.http.relative_times import time_element
from accounts.models import Invitation, Role, User
from accounts.models.onboarding.invitations import InvitationState
from accounts.parsing.end_choice_field import EndChoiceField

INVITE, CHANGE, GRANT = (
    "accounts.add_user",
    "accounts.change_user",
    "accounts.add_roleassignment",
)
"""Permissions to invite new people, people with an account, and with roles."""

LOOKS = {
    InvitationState.PENDING: "warn",
    InvitationState.ACCEPTED: "good",
    InvitationState.EXPIRED: "bad",
}
OPEN = (InvitationState.PENDING, InvitationState.EXPIRED)
"""States in which a new link can be made."""


class RolesField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """Roles with their descriptions, each with a box."""

    widget = forms.CheckboxSelectMultiple

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} - {_(obj.description)}" if obj.description else str(obj)


def grantable_roles(actor: User, user: User) -> QuerySet[Role]:
    """The roles that `actor` may give to `user`, for some time at least."""
    roles = Role.objects.all()
    allowed = [r.pk for r in roles if not objection_to_removing(actor, user, r)]
    return roles.filter(pk__in=allowed)


class InviteForm(forms.Form):
    """A person, their roles and the end of the roles."""

    username = forms.CharField(
        max_length=150,
        label=gettext_lazy("Username"),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
    email = forms.EmailField(
        required=False,
        label=gettext_lazy("Email address"),
        help_text=gettext_lazy("Optional. Lost passwords are reset by mail."),
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    roles = RolesField(
        queryset=Role.objects.none(), required=False, label=gettext_lazy("Roles")
    )
    until = EndChoiceField(label=gettext_lazy("Roles end"))
    mail = forms.BooleanField(
        required=False, initial=True, label=gettext_lazy("Send the link by mail")
    )

    def __init__(self, actor: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor, self.user = actor, User()
        if actor.has_perm(GRANT):
            roles: Any = self.fields["roles"]
            roles.queryset = grantable_roles(actor, self.user)
        else:
            del self.fields["roles"], self.fields["until"]
        if not mail_configured():
            del self.fields["mail"]

    def clean(self) -> dict[str, Any]:
        """Find or make the account; refuse what the actor may not do."""
        cleaned = super().clean() or {}
        if "username" in cleaned:
            self.user = self.find_user(cleaned["username"], cleaned.get("email", ""))
        return cleaned

    def find_user(self, name: str, email: str) -> User:
        """The account with this name, or a new one. Raises ValidationError."""
        user: User | None = User.objects.all().named(name)
        if user is None:
            user = User(username=User.normalize_username(name), email=email)
            user.full_clean(exclude=["password"])
            return user
        self.refuse_account(user)
        if email and email.lower() != user.email:
            text = _("%s has another address. Change it on the user's page.") % user
            raise ValidationError({"email": text})
        return user

    def refuse_account(self, user: User) -> None:
        """Raises ValidationError."""
        text = objection_to_inviting(self.actor, user)
        if not text and not self.actor.has_perm(CHANGE):
            text = _("You do not have permission to change %s.") % user
        if text:
            raise ValidationError({"username": text})

    def save(self) -> Issued:
        """Invite the person. Raises NotAllowed."""
        data = self.cleaned_data
        roles, until = data.get("roles", ()), data.get("until")
        return invite(self.user, roles, until, actor=self.actor)


def shown_links(issued: Iterable[Issued], *, mail: bool = True) -> list[dict[str, Any]]:
    """Each link for the page that shows it once; `mail` also sends it if it can."""
    return [
        {
            "row": row,
            "url": invitation_url(raw),
            "mailed": mail and mail_invitation((row, raw)),
        }
        for row, raw in issued
    ]


@site_page
class InvitePage(SitePage):
    """GET: the form, `?user=NAME` fills it. POST: invite, and show the link once."""

    path = "users/invite/"
    name = "invite"
    title = gettext_lazy("Invite")
    place = (Section.PEOPLE, 20)
    permissions = (INVITE,)
    template = "admin/invite.html"

    def page(self, context: dict[str, Any], status: int = 200) -> HttpResponse:
        users = (reverse("admin:accounts_user_changelist"), capfirst(_("users")))
        return super().page({**context, "parent": users}, status)

    def get(self, request: Any) -> HttpResponse:
        name = request.GET.get("user", "") if may(request, CHANGE) else ""
        known = User.objects.all().named(name) if name else None
        initial = {"username": known.username, "email": known.email} if known else {}
        return self.page({"form": InviteForm(request.user, initial=initial)})

    @sensitive_variables("issued", "links")
    def post(self, request: Any) -> HttpResponse:
        form = InviteForm(request.user, request.POST)
        if not form.is_valid():
            return self.page({"form": form}, status=400)
        try:
            issued = form.save()
        except NotAllowed as error:
            form.add_error(None, str(error))
            return self.page({"form": form}, status=400)
        links = shown_links([issued], mail=form.cleaned_data.get("mail", False))
        return self.page({"links": links})


@row_link(User)
def invite_button(request: Any, user: User) -> list[tuple[Any, str]]:
    """On the page of a person who cannot sign in yet."""
    allowed = may(request, INVITE) and may(request, CHANGE)
    if not allowed or objection_to_inviting(request.user, user):
        return []
    return [(_("Invite"), invite_page_url(user))]


def invite_page_url(user: User | None = None) -> str:
    query = {"user": user.username} if user else None
    return reverse("admin:invite", query=query)


class InvitationStateFilter(admin.SimpleListFilter):
    title, parameter_name = gettext_lazy("status"), "state"

    def lookups(self, request: Any, model_admin: Any) -> Any:
        return InvitationState.choices

    def queryset(self, request: Any, queryset: Any) -> Any:
        state = self.value()
        known = state in InvitationState.values
        return queryset.in_state(state) if known else queryset


def objection_to_changing_invitation(actor: User, row: Invitation) -> str:
    """Why `actor` may not resend or withdraw it; empty if they may."""
    if row.state not in OPEN:
        return _("this invitation is %s.") % row.state.label
    if outranks(actor, row.user):
        return _("%s has more permissions than you. Ask a superuser.") % row.user
    return ""


def objection_to_resending(actor: User, row: Invitation) -> str:
    text = objection_to_changing_invitation(actor, row)
    return text or objection_to_inviting(actor, row.user)


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin[Invitation]):
    """Who was invited, who invited them, and what became of it."""

    place = (Section.PEOPLE, 30)
    intro = gettext_lazy(
        "Links with which people set a password or a passkey. Each works once. "
        "A new link replaces the earlier one."
    )
    nothing_yet = gettext_lazy("Nobody has been invited yet. Press Invite.")
    list_display = (
        "user",
        "standing",
        "roles_to_use",
        "inviter",
        "sent_at",
        "link_end",
        "accepted_at",
        "accepted_from",
    )
    list_filter = (InvitationStateFilter,)
    list_select_related = ("user",)
    search_fields = ("user__username", "inviter")
    show_full_result_count = False
    fields = (
        "user",
        "standing",
        "roles_to_use",
        "inviter",
        "sent_at",
        "mailed_to",
        "link_end",
        "accepted_at",
        "accepted_from",
        "withdrawn_at",
    )
    readonly_fields = ("standing", "roles_to_use", "inviter", "link_end")
    actions = ("resend", "withdraw")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may invite also sees what became of it."""
        return super().has_view_permission(request, obj) or may(request, INVITE)

    def has_invite_permission(self, request: HttpRequest) -> bool:
        return may(request, INVITE)

    def list_tools(self, request: HttpRequest) -> list[tuple[Any, str]]:
        return [(_("Invite"), invite_page_url())] if may(request, INVITE) else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invitation]:
        rows = super().get_queryset(request).select_related("user")
        return rows.prefetch_related("user__role_assignments__role")

    @admin.display(description=gettext_lazy("status"))
    def standing(self, obj: Invitation) -> SafeString:
        return badge(obj.state.label, LOOKS.get(obj.state, ""))

    @admin.display(
        description=gettext_lazy("link expires at"),
        ordering="expires_at",
        empty_value="-",
    )
    def link_end(self, obj: Invitation) -> SafeString | None:
        """None if the link ended earlier, because it was used or withdrawn."""
        return time_element(obj.expires_at) if obj.state in OPEN else None

    @admin.display(description=gettext_lazy("roles"))
    def roles_to_use(self, obj: Invitation) -> str:
        held = [a for a in obj.user.role_assignments.all() if not a.expired]
        return names(a.role for a in held) or "-"

    @admin.action(
        description=gettext_lazy("Resend: make a new link"), permissions=["invite"]
    )
    @sensitive_variables("issued")
    def resend(self, request: Any, queryset: Any) -> HttpResponse | None:
        """Show the new links once; mail those that were mailed before."""
        rows = changeable_rows(self, request, queryset, objection_to_resending)
        if not rows:
            return None
        links = []
        for row in rows:
            issued = Invitation.objects.issue(row.user, actor=request.user)
            links += shown_links([issued], mail=bool(row.mailed_to))
        context = {
            **self.admin_site.each_context(request),
            "title": _("New links"),
            "parent": (request.get_full_path(), self.opts.verbose_name_plural),
            "links": links,
        }
        return TemplateResponse(request, "admin/invite.html", context)

    @admin.action(
        description=gettext_lazy("Withdraw: end the link"), permissions=["invite"]
    )
    def withdraw(self, request: Any, queryset: Any) -> None:
        """End the links, and accounts that were only made for them."""
        rows = changeable_rows(
            self, request, queryset, objection_to_changing_invitation
        )
        closed = [
            row.user.username
            for row in rows
            if withdraw_invitation(row, actor=request.user)
        ]
        text = ngettext(
            "%d invitation withdrawn.", "%d invitations withdrawn.", len(rows)
        )
        self.message_user(request, text % len(rows), messages.SUCCESS)
        if closed:
            text = _("Never used, and therefore deactivated: %s")
            self.message_user(request, text % ", ".join(closed), messages.WARNING)
