"""allauth's passkey forms, made to refuse malformed WebAuthn responses.

allauth and fido2 raise KeyError, ValueError and others for JSON of an odd shape, and
anybody can post it: the sign-in page takes a passkey from whoever comes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn import forms as allauth
from cryptography.exceptions import UnsupportedAlgorithm
from django import forms

from accounts.json_form_field import JSONFormField

MALFORMED = (
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    struct.error,
)
"""What parsing a WebAuthn response (base64, JSON, CBOR, COSE keys) can raise."""


@contextmanager
def refused_if_malformed() -> Iterator[None]:
    """Turn parsing errors into the form error of a wrong passkey."""
    try:
        yield
    except MALFORMED as error:
        raise get_adapter().validation_error("incorrect_code") from error


class _PasskeyForm(forms.Form):
    credential = JSONFormField(required=True, widget=forms.HiddenInput)


class AddForm(_PasskeyForm, allauth.AddWebAuthnForm):
    """Register a passkey."""

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError."""
        with refused_if_malformed():
            return dict(super().clean() or {})


class SecondStepForm(_PasskeyForm, allauth.AuthenticateWebAuthnForm):
    """A passkey as second factor."""

    def clean_credential(self) -> Authenticator:
        """The passkey's row. Raises ValidationError."""
        with refused_if_malformed():
            return super().clean_credential()


class ReauthenticateForm(SecondStepForm, allauth.ReauthenticateWebAuthnForm):
    """A passkey before a sensitive change."""


class SignInForm(SecondStepForm, allauth.LoginWebAuthnForm):
    """A passkey instead of a password."""
