"""The family of OAuth refusals: one class for each code of the RFCs."""

from __future__ import annotations


class EndpointError(Exception):
    """A refusal with the code of RFC 6749 5.2."""

    def __init__(self, error: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error, self.status = error, status


class InvalidRedirectURI(ValueError):
    """A URI nobody may be sent to, with the reason."""


class InvalidClientMetadata(Exception):
    """The document cannot be registered; `error` is RFC 7591 3.2.2's code."""

    def __init__(self, text: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(text)
        self.error = error


class OAuthError(Exception):
    """Family of the refusals below. `error` is the RFC 6749 5.2 code."""

    error = "invalid_request"


class InvalidGrant(OAuthError):
    """The refresh token, or the account behind it, does not count."""

    error = "invalid_grant"


class InvalidScope(OAuthError):
    """A scope was asked for that the account's roles do not give."""

    error = "invalid_scope"


class SecondFactorRequired(OAuthError):
    """The password was right, and is not enough."""

    error = "second_factor_required"
