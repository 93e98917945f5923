"""Second factors on allauth: encrypted secrets, lock-out, enforcement for staff.

RFC 6238 5.2: a code is accepted once, also if another worker receives the second try.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from allauth.core import context
from allauth.mfa import signals
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base.forms import AuthenticateForm, ReauthenticateForm
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts.audit.record import record
from accounts.authentication.lockout import limit_attempts, release_attempt
from accounts.authorization.mfa_enrollment import has_mfa, must_enroll_mfa
from accounts.crypto.encrypted_columns import SECOND_FACTORS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.errors import InvalidGrant, SecondFactorRequired
from accounts.http.language import in_english
from accounts.models import User

PURPOSE = SECOND_FACTORS.purpose
TOTP_STEP = 30
"""Time step of TOTP codes, seconds."""
CODE_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES)
ENFORCED_PATHS = ("/admin/", "/portal/", "/oauth/authorize", "/device")
"""Paths where staff without a second factor are redirected to set one up."""
EXEMPT_PATHS = ("/portal/security/", "/admin/logout/", "/admin/jsi18n/")


class MFAAdapter(DefaultMFAAdapter):
    """TOTP secrets and recovery codes are encrypted with KEY_ENCRYPTION_KEY."""

    def encrypt(self, text: str) -> str:
        """AES-256-GCM: base64 of nonce and ciphertext."""
        return base64.b64encode(seal(PURPOSE, text.encode())).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Raises KeyUnreadable if KEY_ENCRYPTION_KEY is another one."""
        try:
            raw = base64.b64decode(encrypted_text, validate=True)
            return unseal(PURPOSE, raw).decode()
        except (KeyUnreadable, ValueError) as error:
            text = "This KEY_ENCRYPTION_KEY does not decrypt a second factor."
            raise KeyUnreadable(text) from error


def consume_code(user: Any, code: str) -> Authenticator | None:
    """Consume a TOTP or recovery code; None if it is wrong.

    Runs in the caller's transaction, which also counts the attempt.
    """
    rows = Authenticator.objects.select_for_update().filter(user_id=user.pk)
    for row in rows.filter(type__in=CODE_TYPES).order_by("type"):
        if row.wrap().validate_code(code) and claim_time_step(row):
            return row
    return None


def claim_time_step(row: Authenticator) -> bool:
    """Store the current time step; False if a TOTP code was used in it before."""
    if row.type != Authenticator.Type.TOTP:
        return True
    step = int(time.time()) // TOTP_STEP
    if row.data.get("last_step") == step:
        return False
    row.data["last_step"] = step
    row.save(update_fields=["data"])
    return True


def verify_code(request: Any, user: Any, code: str) -> Authenticator:
    """The authenticator that accepts this code. Raises ValidationError, RateLimited.

    Wrong codes and wrong passwords share one lock-out.
    """
    row = limit_attempts(request, user.username, lambda: consume_code(user, code))
    if row is None:
        raise ValidationError(
            _("The code is wrong or was already used. Enter a new code.")
        )
    return row


def check_otp(request: Any, user: Any, otp: str) -> None:
    """Check the code for endpoints without pages.

    Raises SecondFactorRequired, InvalidGrant, RateLimited.
    """
    if must_enroll_mfa(user):
        url = f"{settings.ISSUER_URL}/portal/security/"
        raise SecondFactorRequired(_("Set up a second factor first at %s.") % url)
    if not has_mfa(user):
        return
    if not otp:
        raise SecondFactorRequired(
            _(
                "Send a code from your authenticator app or a recovery "
                "code as otp, or use a token instead."
            )
        )
    release_attempt(request)  # The code is another attempt.
    try:
        verify_code(request, user, otp)
    except ValidationError as error:
        raise InvalidGrant(str(error.message)) from error


class CodeForm(AuthenticateForm):
    """The second step of a sign-in with a TOTP or recovery code."""

    def clean_code(self) -> str:
        """Check the code under the lock-out. Raises ValidationError, RateLimited."""
        code = str(self.cleaned_data["code"])
        self.authenticator = verify_code(context.request, self.user, code)
        return code


class ReauthenticationCodeForm(ReauthenticateForm):
    """CodeForm for reauthentication before a sensitive change."""

    clean_code = CodeForm.clean_code


class StaffFactorMiddleware:
    """Django middleware: redirects staff without a second factor to enroll one."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Redirect on ENFORCED_PATHS, before the view runs."""
        path = request.path
        if not settings.STAFF_SECOND_FACTOR or path.startswith(EXEMPT_PATHS):
            return None
        if path.startswith(ENFORCED_PATHS) and must_enroll_mfa(request.user):
            return redirect("portal-security")
        return None


def connect_mfa_audit() -> None:
    for verb in ("added", "removed", "reset"):
        signal = getattr(signals, f"authenticator_{verb}")
        signal.connect(
            mfa_change_receiver(verb), weak=False, dispatch_uid=f"portico-factor-{verb}"
        )


def mfa_change_receiver(verb: str) -> Any:
    """A receiver that records the change and ends the account's other sessions."""

    def receiver(request: Any, user: Any, authenticator: Any, **kwargs: Any) -> None:
        with in_english():
            kind = str(authenticator.get_type_display())
        about = f"{kind} of {user.username}"
        action = f"second_factor.{verb}"
        record(action, request=request, actor=user, object=about, subject=user)
        account = User.objects.filter(pk=user.pk)
        account.sign_out_browsers(
            actor=user, reason=f"second factor {verb}", keep=request
        )

    return receiver


def reset_mfa(user: Any, *, actor: Any, keep: HttpRequest | None = None) -> int:
    """Delete all second factors of a user; returns how many.

    Also revokes all access, because the finder of a lost device may be signed in.
    Runs in one transaction, and is audited.
    """
    with transaction.atomic():
        deleted: int = Authenticator.objects.filter(user_id=user.pk).delete()[0]
        record("second_factor.reset", actor=actor, object=user)
        user.revoke_tokens(actor=actor, reason="second factor reset", keep=keep)
    return deleted
