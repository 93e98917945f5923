"""Give, extend and end one role of one person, from any page that shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin_site.base import may
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, site_page
from accounts.audit.record import record
from accounts.authorization.delegation import (
    objection_to_granting,
    objection_to_removing,
)
from accounts.authorization.invitations import give_role
from accounts.models import Role, RoleAssignment, User
from accounts.parsing.end_choice_field import FOREVER, TYPED, EndChoiceField
from accounts.parsing.ends import LAST_END
from accounts.parsing.row_ids import row_id

GIVE, CHANGE = "accounts.add_roleassignment", "accounts.change_roleassignment"


class RoleChangeForm(forms.Form):
    """The end as a chip (`until_0`) or as a typed date, and the reason."""

    until = EndChoiceField()
    reason = forms.CharField(
        max_length=255, required=False, label=gettext_lazy("Reason")
    )


def back_url(request: HttpRequest, user: User) -> str:
    """The page that had the button; the person's page if it is not named."""
    asked = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(asked, allowed_hosts=None):
        return asked
    return reverse("admin:accounts_user_change", args=(user.pk,))


def end_words(end: datetime | None) -> str:
    if end is None:
        return _("no end date")
    local = timezone.localtime(end)
    return _("until %s") % f"{date_format(local, 'Y-m-d H:i T')}"


@site_page
class RoleChanges(SitePage):
    """POST `user`, `role`, and `give`, `extend` or `end`; returns to `next`."""

    path = "users/role/"
    name = "change-role"
    title = gettext_lazy("Change a role")
    place = (Section.PEOPLE, 91)
    permissions = ("accounts.view_user",)
    in_menu = False

    def get(self, request: HttpRequest) -> HttpResponse:
        """A reload after the session ended leads here."""
        return redirect("admin:accounts_user_changelist")

    def post(self, request: HttpRequest) -> HttpResponse:
        user = get_object_or_404(User, pk=row_id(request.POST.get("user", "")))
        form = RoleChangeForm(request.POST)
        do: Callable[..., str] = self.give
        if "end" in request.POST:
            do, form = self.end, RoleChangeForm({"until_0": FOREVER})
        try:
            if not form.is_valid():
                raise ValidationError([e for es in form.errors.values() for e in es])
            text = do(request, user, chosen_role(request), form.cleaned_data)
            messages.success(request, text)
        except ValidationError as error:
            for text in error.messages:
                messages.error(request, text)
        return redirect(back_url(request, user))

    def give(
        self, request: HttpRequest, user: User, role: Role, data: dict[str, Any]
    ) -> str:
        """Grant or lengthen it. Raises ValidationError, PermissionDenied."""
        actor: Any = request.user
        until = data["until"]
        held = RoleAssignment.objects.filter(user=user, role=role).first()
        require(request, CHANGE if held and not held.expired else GIVE)
        if held and "extend" in request.POST and request.POST["until_0"] != TYPED:
            until = lengthened(held, until)
        refuse(objection_to_granting(actor, user, role, until))
        if held is not None and held.lasts_until(until):
            lasting = {"role": held, "end": end_words(held.expires_at)}
            raise ValidationError(_("%(role)s already: %(end)s.") % lasting)
        given = give_role(user, role, until, actor=actor, reason=data["reason"])
        return f"{given}: {end_words(given.expires_at)}"

    def end(
        self, request: HttpRequest, user: User, role: Role, data: dict[str, Any]
    ) -> str:
        """End it now. Raises ValidationError, PermissionDenied."""
        actor: Any = request.user
        require(request, CHANGE)
        refuse(objection_to_removing(actor, user, role))
        held = get_object_or_404(RoleAssignment, user=user, role=role)
        record("role.ended", actor=actor, request=request, object=held)
        held.end(actor=actor, keep=request)
        return _("%s: ended.") % held


def chosen_role(request: HttpRequest) -> Role:
    """Raises ValidationError."""
    role = Role.objects.filter(pk=row_id(request.POST.get("role", ""))).first()
    if role is None:
        raise ValidationError(_("Choose a role."))
    return role


def lengthened(held: RoleAssignment, until: datetime | None) -> datetime | None:
    """The end if the duration starts at the present end, not now."""
    if until is None or held.expires_at is None:
        return None
    now = timezone.now()
    end: datetime = min(max(held.expires_at, now) + (until - now), LAST_END)
    return end


def require(request: HttpRequest, permission: str) -> None:
    """Raises PermissionDenied."""
    if not may(request, permission):
        raise PermissionDenied


def refuse(objection: str) -> None:
    """Raises ValidationError."""
    if objection:
        raise ValidationError(objection)
