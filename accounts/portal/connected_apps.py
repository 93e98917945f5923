"""Connected apps: list and revoke consents."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import ngettext

from accounts.audit.record import record
from accounts.authentication.pages import Page
from accounts.models import IssuedToken, Scope
from accounts.parsing.row_ids import row_id


class AppsView(Page):
    """GET: the list. POST `revoke=ID` ends one from the next message on."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Consents of the user: what each allows, and when its client was last used."""
        consents = self.me.consents.select_related("client")
        used = {
            row.client_id: row.last_used_at
            for row in IssuedToken.objects.filter(user=self.me).order_by("last_used_at")
            if row.last_used_at is not None
        }
        words = Scope.objects.in_words(consent.scope for consent in consents)
        apps = [
            (consent, used.get(consent.client.client_id), words[consent.scope])
            for consent in consents
        ]
        return render(request, "portal/apps.html", {"apps": apps})

    def post(self, request: HttpRequest) -> HttpResponse:
        """Delete the consent and revoke the client's tokens of this user."""
        key = request.POST.get("revoke", "")
        consent = get_object_or_404(self.me.consents, pk=row_id(key))
        with transaction.atomic():
            record(
                "consent.withdrawn",
                actor=self.me,
                request=request,
                object=f"client {consent.client}",
                subject=self.me,
                client_id=consent.client.client_id,
            )
            count = consent.end(actor=self.me, reason="revoked in the portal")
        message = ngettext(
            "Access and %d token revoked.", "Access and %d tokens revoked.", count
        )
        messages.success(request, message % count)
        return redirect("portal-apps")
