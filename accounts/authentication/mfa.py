"""Second factors on allauth: secrets encrypted, wrong codes counted, staff obliged.

RFC 6238 5.2: a code counts once, also when it is tried at another worker.
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
from accounts.authentication.lockout import limit_attempts
from accounts.authorization.mfa_enrollment import has_mfa, must_enroll_mfa
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.errors import InvalidGrant, SecondFactorRequired
from accounts.models import User

PURPOSE = b"portico second factors v1"
TOTP_STEP = 30
"""Seconds a TOTP code lasts."""
CODE_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES)
ENFORCED_PATHS = ("/admin/", "/portal/", "/oauth/authorize", "/device")
"""Where staff without a second factor get no further than setting one up."""
EXEMPT_PATHS = ("/portal/security/", "/admin/logout/", "/admin/jsi18n/")


class MFAAdapter(DefaultMFAAdapter):
    """TOTP secrets and recovery codes are encrypted with KEY_ENCRYPTION_KEY."""

    def encrypt(self, text: str) -> str:
        """AES-256-GCM, nonce in front, as text."""
        return base64.b64encode(seal(PURPOSE, text.encode())).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """The secret. Raises KeyUnreadable under another key."""
        try:
            raw = base64.b64decode(encrypted_text, validate=True)
            return unseal(PURPOSE, raw).decode()
        except (KeyUnreadable, ValueError) as error:
            text = "A second factor does not open with this KEY_ENCRYPTION_KEY."
            raise KeyUnreadable(text) from error


def consume_code(user: Any, code: str) -> Authenticator | None:
    """Use up a code of an app, or a recovery code; None if it is wrong.

    In the caller's transaction, which also counts.
    """
    rows = Authenticator.objects.select_for_update().filter(user_id=user.pk)
    for row in rows.filter(type__in=CODE_TYPES).order_by("type"):
        if row.wrap().validate_code(code) and claim_time_step(row):
            return row
    return None


def claim_time_step(row: Authenticator) -> bool:
    """Whether no code of an app was used in these 30 seconds before (note it)."""
    if row.type != Authenticator.Type.TOTP:
        return True
    step = int(time.time()) // TOTP_STEP
    if row.data.get("last_step") == step:
        return False
    row.data["last_step"] = step
    row.save(update_fields=["data"])
    return True


def verify_code(request: Any, user: Any, code: str) -> Authenticator:
    """The authenticator whose code this is. Raises ValidationError, TooMany.

    Wrong codes count as wrong passwords do: the lock-out is one for both.
    """
    found = limit_attempts(request, user.username, lambda: consume_code(user, code))
    if found is None:
        raise ValidationError(_("The code is wrong, or was used before."))
    return found


def check_otp(request: Any, user: Any, otp: str) -> None:
    """For doors without pages. Raises FactorRequired, InvalidGrant, TooMany."""
    if must_enroll_mfa(user):
        where = f"{settings.ISSUER_URL}/portal/security/"
        raise SecondFactorRequired(_("Set a second factor up first, at %s.") % where)
    if not has_mfa(user):
        return
    if not otp:
        raise SecondFactorRequired(
            _("Send a code of your app, or a recovery code, as otp; or use a token.")
        )
    try:
        verify_code(request, user, otp)
    except ValidationError as error:
        raise InvalidGrant(str(error.message)) from error


class CodeForm(AuthenticateForm):
    """The second step of signing in."""

    def clean_code(self) -> str:
        """Count what is wrong."""
        code = str(self.cleaned_data["code"])
        self.authenticator = verify_code(context.request, self.user, code)
        return code


class ReauthenticationCodeForm(ReauthenticateForm):
    """The same before something sensitive."""

    clean_code = CodeForm.clean_code


class StaffFactorMiddleware:
    """Django middleware: staff without a second factor are sent to set one up."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Pass on."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Redirect who owes one."""
        path = request.path
        if not settings.STAFF_SECOND_FACTOR or path.startswith(EXEMPT_PATHS):
            return None
        if path.startswith(ENFORCED_PATHS) and must_enroll_mfa(request.user):
            return redirect("portal-security")
        return None


def connect_mfa_audit() -> None:
    """Put changes of second factors on record."""
    for verb in ("added", "removed", "reset"):
        signal = getattr(signals, f"authenticator_{verb}")
        signal.connect(
            mfa_change_receiver(verb), weak=False, dispatch_uid=f"portico-factor-{verb}"
        )


def mfa_change_receiver(verb: str) -> Any:
    """A receiver that records, and signs the account's other browsers out."""

    def receiver(request: Any, user: Any, authenticator: Any, **kwargs: Any) -> None:
        about = f"{authenticator.get_type_display()} of {user.username}"
        record(f"second_factor.{verb}", request=request, actor=user, object=about)
        account = User.objects.filter(pk=user.pk)
        account.sign_out_browsers(
            actor=user, reason=f"second factor {verb}", keep=request
        )

    return receiver


def reset_mfa(user: Any, *, actor: Any, keep: HttpRequest | None = None) -> int:
    """Take all second factors of somebody who lost them; how many. On record.

    Whoever has found the lost device may be signed in with it: all access ends.
    """
    with transaction.atomic():
        gone: int = Authenticator.objects.filter(user_id=user.pk).delete()[0]
        record("second_factor.reset", actor=actor, object=user.username)
        user.revoke_tokens(actor=actor, reason="second factor reset", keep=keep)
    return gone
