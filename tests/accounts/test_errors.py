"""The error codes of the RFCs."""

from __future__ import annotations

import pytest

from accounts import errors


@pytest.mark.spec("RFC 6749 5.2")
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.OAuthError, "invalid_request"),
        (errors.InvalidGrant, "invalid_grant"),
        (errors.InvalidScope, "invalid_scope"),
        (errors.SecondFactorRequired, "second_factor_required"),
    ],
)
def test_each_class_has_its_code(kind: type[errors.OAuthError], code: str) -> None:
    error = kind("a text")
    assert isinstance(error, errors.OAuthError)
    assert (error.error, str(error)) == (code, "a text")


def test_an_endpoints_error_is_400_unless_stated() -> None:
    plain, stated = (
        errors.EndpointError("invalid_grant", "a text"),
        errors.EndpointError("invalid_client", "a text", 401),
    )
    assert (plain.error, str(plain), plain.status) == ("invalid_grant", "a text", 400)
    assert (stated.error, stated.status) == ("invalid_client", 401)


def test_metadata_errors_have_the_codes_of_rfc_7591() -> None:
    plain = errors.InvalidClientMetadata("a text")
    uri = errors.InvalidClientMetadata("a text", "invalid_redirect_uri")
    assert (plain.error, str(plain)) == ("invalid_client_metadata", "a text")
    assert uri.error == "invalid_redirect_uri"
    assert issubclass(errors.InvalidRedirectURI, ValueError)
