"""Security page: second factors, password, sessions, sign out everywhere."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authentication.pages import Page
from accounts.authorization.mfa_enrollment import must_enroll_mfa
from accounts.models import SignInProvider, User
from accounts.parsing.row_ids import row_id
from accounts.parsing.text import browser_in_words, counted


class SecurityView(Page):
    """GET: the page. POST `end=ID` ends a session, `everywhere` all, tokens too."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Second factors and browser sessions of the user."""
        mine = Authenticator.objects.filter(user_id=self.me.pk)
        context = {
            "factors": {row.type: row for row in mine},
            "keys": [row for row in mine if row.type == Authenticator.Type.WEBAUTHN],
            "sessions": [
                (row, browser_in_words(row.user_agent))
                for row in UserSession.objects.purge_and_list(self.me)
            ],
            "owes": must_enroll_mfa(self.me),
            "providers": SignInProvider.objects.filter(enabled=True).exists(),
        }
        return render(request, "portal/security.html", context)

    def post(self, request: HttpRequest) -> HttpResponse:
        if "everywhere" in request.POST:
            return self.sign_out_everywhere(request)
        key = request.POST.get("end", "")
        sessions = UserSession.objects.filter(user_id=self.me.pk, pk=row_id(key))
        for session in sessions:
            description = f"session from {session.ip}"
            record(
                "session.ended",
                request=request,
                actor=self.me,
                object=description,
                subject=self.me,
            )
            end_sessions(request, [session])
            messages.success(request, _("Session ended."))
        return redirect("portal-security")

    def sign_out_everywhere(self, request: HttpRequest) -> HttpResponse:
        """End all sessions and tokens of the user, this session included."""
        me = self.me
        account = User.objects.filter(pk=me.pk)
        tokens, browsers = account.revoke_all_sessions(
            actor=me, reason="signed out everywhere"
        )
        summary = f"{counted(browsers, 'session')}, {counted(tokens, 'token')}"
        record(
            "user.signed_out_everywhere",
            request=request,
            actor=me,
            object=summary,
            subject=me,
        )
        logout(request)
        return redirect("account_login")
