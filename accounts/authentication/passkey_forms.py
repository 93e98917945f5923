"""allauth's passkey forms, which refuse malformed WebAuthn responses.

allauth and fido2 raise KeyError, ValueError and others for malformed JSON. Any visitor
can post such JSON to the sign-in page, and would get a 500.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn import forms as allauth
from allauth.mfa.webauthn.internal import auth
from cryptography.exceptions import UnsupportedAlgorithm
from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy

from accounts.parsing.json_form_field import JSONFormField

MALFORMED = (
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    struct.error,
)
"""Exceptions from parsing a WebAuthn response (base64, JSON, CBOR, COSE keys)."""


@contextmanager
def refused_if_malformed() -> Iterator[None]:
    """Map parsing errors to the form error for a wrong passkey."""
    try:
        yield
    except MALFORMED as error:
        raise get_adapter().validation_error("incorrect_code") from error


def check_origin(response: Any) -> None:
    """Raise ValueError unless the response's origin is ISSUER_URL.

    fido2 also accepts subdomains and other ports. Only https is compared, because in
    development a server has several names (localhost, 127.0.0.1).
    """
    origin = response.response.client_data.origin
    if settings.ISSUER_URL.startswith("https://") and origin != settings.ISSUER_URL:
        raise ValueError("the WebAuthn response has another origin")


class _PasskeyForm(forms.Form):
    credential = JSONFormField(required=True, widget=forms.HiddenInput)


class _NewPasskeyForm(_PasskeyForm):
    # allauth gives no label, and Django's default is not translated.
    name = forms.CharField(required=False, label=gettext_lazy("Name"))

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError."""
        with refused_if_malformed():
            if credential := self.cleaned_data.get("credential"):
                check_origin(auth.parse_registration_response(credential))
            return dict(super().clean() or {})


class AddForm(_NewPasskeyForm, allauth.AddWebAuthnForm):
    """Register a passkey."""


class FirstPasskeyForm(_NewPasskeyForm, allauth.SignupWebAuthnForm):
    """The passkey with which a new person will sign in, without a password.

    The challenge requires that the authenticator verifies the user.
    """


class SecondStepForm(_PasskeyForm, allauth.AuthenticateWebAuthnForm):
    """A passkey as second factor."""

    verifies_user = False
    """Whether the authenticator must verify the user (PIN or biometrics)."""

    def clean_credential(self) -> Authenticator:
        """The passkey's row. Raises ValidationError."""
        with refused_if_malformed():
            credential = self.cleaned_data["credential"]
            response = auth.parse_authentication_response(credential)
            check_origin(response)
            verified = response.response.authenticator_data.is_user_verified()
            if self.verifies_user and not verified:
                raise ValueError("the authenticator did not verify the user")
            return super().clean_credential()


class ReauthenticateForm(SecondStepForm, allauth.ReauthenticateWebAuthnForm):
    """A passkey before a sensitive change."""


class SignInForm(SecondStepForm, allauth.LoginWebAuthnForm):
    """A passkey instead of a password.

    fido2 requires user verification only if the challenge asked for it. The session may
    still contain the challenge of a second step, which did not.
    """

    verifies_user = True
