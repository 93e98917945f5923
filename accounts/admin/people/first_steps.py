"""First steps of a new installation that concern accounts."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin.people.invitations import INVITE
from accounts.admin_site.overview.checklist import FirstStep, checklist_step
from accounts.authorization.mfa_enrollment import has_mfa
from accounts.models import RoleAssignment, User


@checklist_step(rank=10, permission="accounts.view_user")
def add_a_second_factor(request: HttpRequest) -> FirstStep:
    return FirstStep(
        _("Add a second factor to your account"),
        _("Your account can change who may use what."),
        reverse("portal-security"),
        has_mfa(request.user),
    )


@checklist_step(rank=20, permission="accounts.view_system")
def set_up_mail(request: HttpRequest) -> FirstStep:
    return FirstStep(
        _("Set up mail (EMAIL_HOST)"),
        _("Portico then sends invitations and links to reset a password."),
        reverse("admin:system"),
        bool(settings.EMAIL_HOST),
    )


@checklist_step(rank=50, permission=INVITE)
def invite_somebody(request: HttpRequest) -> FirstStep:
    me = cast(User, request.user)
    others = RoleAssignment.objects.exclude(user=me)
    return FirstStep(
        _("Invite a person and give them a role"),
        _("They get a link and choose their own password or passkey."),
        reverse("admin:invite"),
        others.exists(),
    )
