"""Device authorization (RFC 8628): a code on one machine, the decision on another.

The toolkit's own flow redeems a code for any client, several times and after its end;
here it is bound to its client, used once, and slowed down.
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
from accounts.tokens.issue import TokenPair, issue_tokens, lock

CODE_LIFETIME = timedelta(minutes=10)
INTERVAL = 5
"""Seconds between two polls; RFC 8628 3.5 adds as many after each slow_down."""
CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so no words; no digits, so nothing to confuse (RFC 8628 6.1)."""


def new_user_code() -> str:
    """Eight letters people can type, about 34 bits."""
    drawn = "".join(secrets.choice(CODE_LETTERS) for _ in range(8))
    return f"{drawn[:4]}-{drawn[4:]}"


def normalize_user_code(text: str) -> str:
    """What somebody typed, as it was shown."""
    letters = "".join(c for c in text.upper() if c in CODE_LETTERS)[:8]
    return f"{letters[:4]}-{letters[4:]}"


class DeviceView(Endpoint):
    """POST /oauth/device: a device_code for the client, a user_code for the person."""

    def serve(
        self, request: HttpRequest, form: QueryDict, client: OAuthClient
    ) -> HttpResponse:
        """RFC 8628 3.1, 3.2."""
        if DEVICE_GRANT not in client.grant_types:
            raise EndpointError("unauthorized_client", "Not registered for this grant.")
        refuse_other_resource(form)
        asked = form.get("scope", "").split() or [ACT_WITHIN_ROLES]
        known = set(Scope.objects.filter(name__in=asked).values_list("name", flat=True))
        if set(asked) - known:
            raise EndpointError("invalid_scope", "There is no such scope.")
        raw, user_code = secrets.token_urlsafe(32), new_user_code()
        OAuthDeviceGrant.objects.create(
            device_code=secret_hash(raw),
            user_code=user_code,
            client_id=client.client_id,
            scope=" ".join(asked),
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


def redeem_device_code(
    client: OAuthClient, raw: str, request: HttpRequest
) -> TokenPair:
    """Trade an allowed device code, once, by its own client. Raises Problem."""
    known = OAuthDeviceGrant.objects.filter(
        device_code=secret_hash(raw), client_id=client.client_id
    )
    decided = known.filter(user__isnull=False).values_list("user_id", flat=True).first()
    user = lock(decided, client.client_id) if decided else None
    # Read again: access that has just ended took the code along.
    grant = known.select_for_update(of=("self",)).first()
    if grant is None:
        raise EndpointError("invalid_grant", "There is no such device code.")
    if grant.expires <= timezone.now():
        raise EndpointError("expired_token", "The device code has expired.")
    if grant.status == OAuthDeviceGrant.DENIED:
        raise EndpointError("access_denied", "The person said no.")
    if grant.status != OAuthDeviceGrant.AUTHORIZED:
        raise polling_error(grant)
    if user is None or grant.auth_digest != user.auth_digest:
        raise EndpointError("invalid_grant", "The account's access was ended.")
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


def polling_error(grant: OAuthDeviceGrant) -> EndpointError:
    """authorization_pending, or slow_down for a client in a hurry (RFC 8628 3.5)."""
    now, last = timezone.now(), grant.polled_at
    hurried = last is not None and now - last < timedelta(seconds=grant.interval)
    grant.polled_at = now
    grant.interval += INTERVAL if hurried else 0
    grant.save(update_fields=["polled_at", "interval"])
    if hurried:
        return EndpointError(
            "slow_down", f"Wait {grant.interval} seconds between polls."
        )
    return EndpointError("authorization_pending", "The person has not decided yet.")


class DevicePage(Page):
    """/device: type the code, see who asks, decide. Plain forms."""

    # Without HEAD, which Django would answer by `get`: it tells which codes live.
    http_method_names = ["get", "post", "options"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask for the code, or show what it stands for."""
        typed = request.GET.get("user_code", "")
        if not typed:
            return render(request, "oauth/device.html", {})
        return self.decision_page(normalize_user_code(typed))

    def post(self, request: HttpRequest) -> HttpResponse:
        """The decision."""
        grant = self.find_grant(normalize_user_code(request.POST.get("user_code", "")))
        if grant is None:
            return self.unknown_code()
        allow = request.POST.get("decision") == "allow"
        held = {ACT_WITHIN_ROLES, *current_grants(self.me.pk)[1]}
        scopes = [name for name in grant.scope.split() if name in held]
        good = allow and bool(scopes)
        status = OAuthDeviceGrant.AUTHORIZED if good else OAuthDeviceGrant.DENIED
        undecided = OAuthDeviceGrant.objects.filter(pk=grant.pk, status=grant.status)
        decision = {"user": self.me, "auth_digest": self.me.auth_digest}
        decision |= {"scope": " ".join(scopes), "status": status}
        if not undecided.update(**decision):
            return self.unknown_code()
        action = "consent.given" if good else "consent.denied"
        record(
            action,
            actor=self.me,
            request=request,
            object=f"device of client {grant.client_id}"[:255],
            client_id=grant.client_id,
            via=" ".join(scopes)[:255],
        )
        return render(request, "oauth/device.html", {"done": True, "allowed": good})

    def find_grant(self, code: str) -> OAuthDeviceGrant | None:
        """As `waiting`; a wrong code counts, for live ones could be guessed.

        Under a name of its own, so that wrong codes shut nobody out of signing in.
        """
        name = f"{DEVICE_PREFIX}{self.me.username}"
        return limit_attempts(self.request, name, lambda: self.pending_grant(code))

    def pending_grant(self, code: str) -> OAuthDeviceGrant | None:
        """The grant of a code nobody has decided yet."""
        rows = OAuthDeviceGrant.objects.filter(
            user_code=code,
            status=OAuthDeviceGrant.AUTHORIZATION_PENDING,
            expires__gt=timezone.now(),
        )
        found: OAuthDeviceGrant | None = rows.first()
        return found

    def decision_page(self, code: str) -> HttpResponse:
        """Who asks for what, with the code to compare."""
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
        """Typed wrongly, too old, or decided already."""
        return render(self.request, "oauth/device.html", {"wrong": True}, status=400)
