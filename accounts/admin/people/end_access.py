"""End all access of one person, with what it ends and a reason."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.admin_site.base import may
from accounts.admin_site.confirmation import own_session, signout_effect
from accounts.admin_site.navigation.groups import Section
from accounts.admin_site.site import SitePage, row_link, site_page
from accounts.audit.record import record
from accounts.authorization.delegation import (
    REVOKE_PERMISSION,
    objection_to_revoking,
    outranks,
)
from accounts.models import Invitation, User
from accounts.models.users import LastSuperuser
from accounts.parsing.row_ids import row_id

CHANGE = "accounts.change_user"


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=200,
        required=False,
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Shown in the audit."),
        widget=forms.TextInput(attrs={"autofocus": True}),
    )


def may_deactivate(request: HttpRequest, user: User) -> bool:
    actor: Any = request.user
    allowed = may(request, CHANGE) and user.is_active and user.pk != actor.pk
    return allowed and not outranks(actor, user)


@site_page
class EndAccessPage(SitePage):
    """GET `?person=ID`: what would end. POST: end it; `deactivate` closes it, too."""

    path = "users/end-access/"
    name = "end-access"
    title = gettext_lazy("End all access")
    place = (Section.PEOPLE, 90)
    permissions = (REVOKE_PERMISSION, "accounts.view_user")
    template = "admin/end_access.html"
    in_menu = False

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        key = request.POST.get("person", request.GET.get("person", ""))
        if not key:
            return redirect("admin:accounts_user_changelist")
        self.user: User = get_object_or_404(User, pk=row_id(key))
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: Any) -> HttpResponse:
        return self.show(ReasonForm())

    def show(self, form: ReasonForm, status: int = 200) -> HttpResponse:
        request, user = self.request, self.user
        actor: Any = request.user
        url = reverse("admin:accounts_user_change", args=(user.pk,))
        context = {
            "title": _("End all access of %s") % user,
            "parent": (url, str(user)),
            "person": user,
            "form": form,
            "objection": objection_to_revoking(actor, user),
            "effect": signout_effect([user.pk], own_session(request)),
            "pending": Invitation.objects.filter(user=user).waiting().exists(),
            "may_deactivate": may_deactivate(request, user),
            "back": url,
        }
        return self.page(context, status)

    def post(self, request: Any) -> HttpResponse:
        form = ReasonForm(request.POST)
        if not form.is_valid() or objection_to_revoking(request.user, self.user):
            return self.show(form, status=400)
        reason = form.cleaned_data["reason"] or "ended in the admin"
        account = User.objects.filter(pk=self.user.pk)
        tokens, browsers = account.revoke_all_sessions(
            actor=request.user, reason=reason, keep=request
        )
        text = ngettext("%d token revoked.", "%d tokens revoked.", tokens) % tokens
        out = ngettext("%d browser signed out.", "%d browsers signed out.", browsers)
        messages.success(request, f"{text} {out % browsers}")
        if "deactivate" in request.POST and may_deactivate(request, self.user):
            self.deactivate(request, reason)
        return redirect("admin:accounts_user_change", self.user.pk)

    def deactivate(self, request: Any, reason: str) -> None:
        try:
            User.objects.filter(pk=self.user.pk).deactivate(
                actor=request.user, reason=reason
            )
        except LastSuperuser as error:
            messages.error(request, error.message)
            return
        record(
            "user.deactivated",
            actor=request.user,
            request=request,
            object=self.user,
            reason=reason,
        )
        messages.success(request, _("%s is deactivated.") % self.user)


@row_link(User)
def end_access_button(request: Any, user: User) -> list[tuple[Any, str]]:
    """On the person's page, for those whose access the reader may end."""
    if not EndAccessPage.allowed(request) or objection_to_revoking(request.user, user):
        return []
    url = reverse("admin:end-access", query={"person": user.pk})
    return [(_("End all access"), url)]
