"""OAuth errors: one class for each error code of the RFCs."""

from __future__ import annotations


class EndpointError(Exception):
    """An endpoint refuses a request; `error` is a code of RFC 6749 5.2."""

    def __init__(self, error: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error, self.status = error, status


class InvalidRedirectURI(ValueError):
    """The URI must not receive redirects; the text says why."""


class InvalidClientMetadata(Exception):
    """The metadata cannot be registered; `error` is a code of RFC 7591 3.2.2."""

    def __init__(self, text: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(text)
        self.error = error


class OAuthError(Exception):
    """Base of the errors below; `error` is a code of RFC 6749 5.2."""

    error = "invalid_request"


class InvalidGrant(OAuthError):
    """The refresh token, or the account that owns it, is not valid."""

    error = "invalid_grant"


class InvalidScope(OAuthError):
    """The request names a scope that the account's roles do not grant."""

    error = "invalid_scope"


class SecondFactorRequired(OAuthError):
    """The password is correct, but the account also needs a second factor."""

    error = "second_factor_required"
