"""Read-only pages for allauth's models, without secrets.

allauth's own pages show session keys and provider secrets. They also allow edits that
skip Portico's audit and delegation rules.
"""

from __future__ import annotations

from typing import Any, cast

from allauth.mfa import admin as mfa_admin
from allauth.mfa.models import Authenticator
from allauth.socialaccount import admin as social_admin
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions import admin as sessions_admin
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from accounts.admin_site.base import M, ReadOnlyAdmin, may
from accounts.admin_site.confirmation import own_session
from accounts.admin_site.navigation.groups import Section
from accounts.audit.record import record
from accounts.authentication.oidc.account_linking import unlink
from accounts.authorization.delegation import outranks, protected_users
from accounts.models import User
from accounts.models.audit.events import subject_of
from accounts.models.browser_sessions import end_sessions
from accounts.parsing.text import browser_in_words

REPLACED_MODELS = (
    mfa_admin.Authenticator,
    social_admin.SocialAccount,
    social_admin.SocialApp,
    social_admin.SocialToken,
    sessions_admin.UserSession,
)
for model in REPLACED_MODELS:
    admin.site.unregister(model)

NAMES: dict[Any, tuple[Any, Any]] = {
    Authenticator: (_("second factor"), _("second factors")),
    UserSession: (_("browser session"), _("browser sessions")),
    SocialAccount: (_("linked identity"), _("linked identities")),
}
LABELS = {
    "user": _("user"),
    "type": _("type"),
    "ip": _("address"),
    "created_at": _("created at"),
    "last_seen_at": _("last used at"),
    "last_used_at": _("last used at"),
    "user_agent": _("browser"),
    "uid": _("ID at the provider"),
}
"""Field -> label. allauth has no translated ones; migrations ignore these."""

for kind, (singular, plural) in NAMES.items():
    kind._meta.verbose_name, kind._meta.verbose_name_plural = singular, plural
    for field in kind._meta.fields:
        field.verbose_name = LABELS.get(field.name, field.verbose_name)


def factor_title(factor: Authenticator) -> str:
    return gettext("%(kind)s of %(user)s") % {
        "kind": factor.get_type_display(),
        "user": factor.user,
    }


def session_title(session: UserSession) -> str:
    return gettext("%(user)s: %(browser)s from %(address)s") % {
        "user": session.user,
        "browser": browser_in_words(session.user_agent),
        "address": session.ip,
    }


def identity_title(identity: SocialAccount) -> str:
    return gettext("%(user)s at %(provider)s") % {
        "user": identity.user,
        "provider": identity.provider,
    }


# The library's own titles have no user, or the whole User-Agent header.
Authenticator.__str__ = factor_title
UserSession.__str__ = session_title
SocialAccount.__str__ = identity_title


class UsersRowAdmin(ReadOnlyAdmin[M]):
    """Rows that are a part of their user, whose history they share."""

    def history_query(self, obj: M) -> dict[str, str]:
        owner: User = obj.user  # type: ignore[attr-defined]
        return {"subject": subject_of(owner)}

    def history_name(self, obj: M) -> str:
        return str(obj.user)  # type: ignore[attr-defined]


@admin.register(Authenticator)
class AuthenticatorAdmin(UsersRowAdmin[Authenticator]):
    place, list_title = (Section.PEOPLE, 70), _("Second factors")
    intro = _(
        "Authenticator apps, passkeys and recovery codes. "
        "Reset them in the list of users."
    )
    nothing_yet = _(
        "No user has set up a second factor yet. Users do this in "
        "the portal under Security."
    )
    list_display = fields = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    search_fields = ("user__username",)
    list_select_related = ("user",)
    show_full_result_count = False


@admin.register(UserSession)
class UserSessionAdmin(UsersRowAdmin[UserSession]):
    place, list_title = (Section.PEOPLE, 60), _("Browser sessions")
    intro = _("Browsers in which users are signed in to the admin and the portal.")
    list_display = ("user", "browser", "ip", "created_at", "last_seen_at")
    fields = ("user", "ip", "created_at", "last_seen_at", "user_agent")
    search_fields = ("user__username", "ip")
    list_select_related = ("user",)
    show_full_result_count = False
    actions = ("end",)

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Ending a session needs the same permission as revoking a token."""
        return may(request, "accounts.change_issuedtoken")

    @admin.display(description=_("browser"))
    def browser(self, obj: UserSession) -> str:
        return browser_in_words(obj.user_agent)

    @admin.action(description=_("End the selected sessions"), permissions=["end"])
    def end(self, request: HttpRequest, queryset: Any) -> None:
        """End the selected sessions except the actor's own."""
        others = protected_users(cast(User, request.user))
        sessions = queryset.order_by().exclude(session_key=own_session(request))
        excluded = sessions.filter(user__in=others).count()
        if excluded:
            message = ngettext(
                "%d session belongs to a user with more permissions than "
                "you. Ask a superuser.",
                "%d sessions belong to users with more permissions than "
                "you. Ask a superuser.",
                excluded,
            )
            self.message_user(request, message % excluded, messages.ERROR)
        sessions = sessions.exclude(user__in=others)
        owners = end_sessions(sessions)
        for owner in owners:
            reason = "ended in the admin"
            record(
                "session.ended",
                actor=request.user,
                request=request,
                object=owner,
                reason=reason,
            )
        count = len(owners)
        message = ngettext("%d browser signed out.", "%d browsers signed out.", count)
        self.message_user(request, message % count, messages.SUCCESS)


@admin.register(SocialAccount)
class SocialAccountAdmin(UsersRowAdmin[SocialAccount]):
    """Links between accounts here and accounts at sign-in providers."""

    place, list_title = (Section.PEOPLE, 80), _("Linked identities")
    intro = _("Accounts at sign-in providers that are linked to users.")
    nothing_yet = _(
        "No linked identities yet. One appears here when a user "
        "signs in through a provider."
    )
    list_display = fields = ("user", "provider", "uid", "date_joined", "last_login")
    search_fields = ("user__username", "uid")
    list_select_related = ("user",)
    show_full_result_count = False
    actions = ("unlink",)

    def has_unlink_permission(self, request: HttpRequest) -> bool:
        return may(request, "accounts.change_user")

    @admin.action(
        description=_("Unlink the selected identities"),
        permissions=["unlink"],
    )
    def unlink(self, request: HttpRequest, queryset: Any) -> None:
        """Skip accounts that have more rights than the actor."""
        actor: Any = request.user
        links = queryset.order_by().select_related("user")
        allowed = [row for row in links if not outranks(actor, row.user)]
        for row in allowed:
            unlink(request, row, actor)
            row.delete()
        message = ngettext(
            "%d identity unlinked.", "%d identities unlinked.", len(allowed)
        )
        self.message_user(request, message % len(allowed), messages.SUCCESS)
