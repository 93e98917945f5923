"""The device authorization grant (RFC 8628).

The toolkit's flow lets any client redeem a code, several times and after it expired.
Here a code is bound to its client and used once, and polling is limited.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone

from accounts.audit.record import record
from accounts.authentication.lockout import DEVICE_PREFIX, limit_attempts
from accounts.authentication.pages import Page
from accounts.authorization.role_grants import current_grants
from accounts.crypto.secrets import secret_hash
from accounts.errors import EndpointError
from accounts.http.client_address import client_address
from accounts.models import IssuedVia, OAuthClient, OAuthDeviceGrant, Scope
from accounts.models.oauth import DEVICE_GRANT
from accounts.models.roles import ACT_WITHIN_ROLES
from accounts.oauth.endpoint import Endpoint, refuse_other_resource
from accounts.parsing.text import one_line
from accounts.tokens.issue import TokenPair, issue_tokens, lock, refuse_long_scope

CODE_LIFETIME = timedelta(minutes=10)
INTERVAL = 5
"""Seconds between two polls; each slow_down adds as many (RFC 8628 3.5)."""
CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, to avoid words; no digits, which users confuse with letters (6.1)."""


def new_user_code() -> str:
    """Eight random letters with a hyphen: 20^8 codes, about 34 bits."""
    letters = "".join(secrets.choice(CODE_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def normalize_user_code(text: str) -> str:
    """A typed code in the form of `new_user_code`."""
    letters = "".join(c for c in text.upper() if c in CODE_LETTERS)[:8]
    return f"{letters[:4]}-{letters[4:]}"


class DeviceView(Endpoint):
    """POST /oauth/device: issues a device_code and a user_code."""

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """RFC 8628 3.1, 3.2. Raises EndpointError."""
        require_device_grant(client)
        refuse_other_resource(form)
        scopes = requested_scopes(form)
        raw, user_code = secrets.token_urlsafe(32), new_user_code()
        OAuthDeviceGrant.objects.create(
            device_code=secret_hash(raw),
            user_code=user_code,
            client_id=client.client_id,
            scope=" ".join(scopes),
            interval=INTERVAL,
            expires=timezone.now() + CODE_LIFETIME,
        )
        page = f"{settings.ISSUER_URL}/device"
        return JsonResponse(
            {
                "device_code": raw,
                "user_code": user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={user_code}",
                "expires_in": int(CODE_LIFETIME.total_seconds()),
                "interval": INTERVAL,
            }
        )


def require_device_grant(client: OAuthClient) -> None:
    """Raise EndpointError unless the client is registered for the device grant."""
    if DEVICE_GRANT not in client.grant_types:
        raise EndpointError("unauthorized_client", "Not registered for this grant.")


def requested_scopes(form: QueryDict) -> list[str]:
    """The known scopes of the request, by default `mcp`.

    Raises EndpointError, InvalidScope.
    """
    names = form.get("scope", "").split() or [ACT_WITHIN_ROLES]
    refuse_long_scope(names)
    rows = Scope.objects.filter(name__in=names)
    if set(names) - set(rows.values_list("name", flat=True)):
        raise EndpointError("invalid_scope", "There is no such scope.")
    return names


def redeem_device_code(
    client: OAuthClient, raw: str, request: HttpRequest
) -> TokenPair:
    """Redeem an approved device code of this client once, in the caller's transaction.

    Locks client, account and grant. Raises EndpointError, InvalidGrant.
    """
    rows = OAuthDeviceGrant.objects.filter(
        device_code=secret_hash(raw), client_id=client.client_id
    )
    owner = rows.filter(user__isnull=False).values_list("user_id", flat=True).first()
    user = lock(owner, client.client_id) if owner else None
    # Read again after the lock: a revocation meanwhile deleted the grant.
    grant = rows.select_for_update(of=("self",)).first()
    if grant is None:
        raise EndpointError("invalid_grant", "There is no such device code.")
    refuse_unapproved(grant)
    if user is None or not user.accepts_digest(grant.auth_digest):
        raise EndpointError("invalid_grant", "The account's access was revoked.")
    pair = issue_tokens(
        user,
        issued_via=IssuedVia.DEVICE,
        scope=grant.scope,
        client_id=client.client_id,
        address=client_address(request),
        opaque=True,
    )
    grant.delete()
    client.update_last_used()
    return pair


def refuse_unapproved(grant: OAuthDeviceGrant) -> None:
    """Raise the error of RFC 8628 3.5 unless the grant is live and approved."""
    if grant.expires <= timezone.now():
        raise EndpointError("expired_token", "The device code has expired.")
    if grant.status == OAuthDeviceGrant.DENIED:
        raise EndpointError("access_denied", "The user denied the request.")
    if grant.status != OAuthDeviceGrant.AUTHORIZED:
        raise polling_error(grant)


def polling_error(grant: OAuthDeviceGrant) -> EndpointError:
    """authorization_pending, or slow_down if the client polls too fast (RFC 8628 3.5).

    Stores the time of the poll.
    """
    now, last = timezone.now(), grant.polled_at
    too_fast = last is not None and now - last < timedelta(seconds=grant.interval)
    grant.polled_at = now
    grant.interval += INTERVAL if too_fast else 0
    grant.save(update_fields=["polled_at", "interval"])
    if too_fast:
        return EndpointError(
            "slow_down", f"Wait {grant.interval} seconds between polls."
        )
    return EndpointError("authorization_pending", "The user has not decided yet.")


class DevicePage(Page):
    """/device: the user enters the code, sees client and scopes, and decides."""

    # Without HEAD: Django answers it with `get`, whose status shows which codes live.
    http_method_names = ["get", "post", "options"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form for the code, or the decision page of a code in the URL."""
        code = request.GET.get("user_code", "")
        if not code:
            return render(request, "oauth/device.html", {})
        return self.decision_page(normalize_user_code(code))

    def post(self, request: HttpRequest) -> HttpResponse:
        grant = self.find_grant(normalize_user_code(request.POST.get("user_code", "")))
        if grant is None:
            return self.unknown_code()
        allow = request.POST.get("decision") == "allow"
        granted = {ACT_WITHIN_ROLES, *current_grants(self.me.pk)[1]}
        scopes = [name for name in grant.scope.split() if name in granted]
        approved = allow and bool(scopes)
        status = OAuthDeviceGrant.AUTHORIZED if approved else OAuthDeviceGrant.DENIED
        undecided = OAuthDeviceGrant.objects.filter(pk=grant.pk, status=grant.status)
        decision = {"user": self.me, "auth_digest": self.me.auth_digest}
        decision |= {"scope": " ".join(scopes), "status": status}
        if not undecided.update(**decision):
            return self.unknown_code()
        action = "consent.given" if approved else "consent.denied"
        client_name = OAuthClient.objects.all().name_of(grant.client_id)
        record(
            action,
            actor=self.me,
            request=request,
            object=f"device of client {client_name}"[:255],
            subject=self.me,
            client_id=grant.client_id,
            via=" ".join(scopes)[:255],
        )
        context = {"done": True, "allowed": approved}
        return render(request, "oauth/device.html", context)

    def find_grant(self, code: str) -> OAuthDeviceGrant | None:
        """The pending grant; counts wrong codes, which could be guesses of live ones.

        The count is separate from sign-in, so that wrong codes do not lock users out.
        Raises RateLimited.
        """
        name = f"{DEVICE_PREFIX}{self.me.username}"
        return limit_attempts(self.request, name, lambda: self.pending_grant(code))

    def pending_grant(self, code: str) -> OAuthDeviceGrant | None:
        """The unexpired grant of a code without a decision."""
        rows = OAuthDeviceGrant.objects.filter(
            user_code=code,
            status=OAuthDeviceGrant.AUTHORIZATION_PENDING,
            expires__gt=timezone.now(),
        )
        grant: OAuthDeviceGrant | None = rows.first()
        return grant

    def decision_page(self, code: str) -> HttpResponse:
        """Show client and scopes, with the code for comparison with the device."""
        grant = self.find_grant(code)
        client = OAuthClient.objects.filter(
            client_id=grant.client_id if grant else ""
        ).first()
        if grant is None or client is None:
            return self.unknown_code()
        scopes = list(Scope.objects.descriptions(grant.scope.split()).items())
        context: dict[str, Any] = {"code": code, "client": client, "scopes": scopes}
        return render(self.request, "oauth/device.html", context)

    def unknown_code(self) -> HttpResponse:
        """The response for a code that is wrong, expired or already decided."""
        sent = self.request.POST or self.request.GET
        context = {"wrong": True, "code": one_line(sent.get("user_code", ""))}
        return render(self.request, "oauth/device.html", context, status=400)
