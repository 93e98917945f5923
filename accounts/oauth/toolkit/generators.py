"""The toolkit's token generators, which call `issue_tokens`."""

from __future__ import annotations

from typing import Any

from oauthlib.oauth2.rfc6749.errors import InvalidGrantError

from accounts.errors import InvalidGrant
from accounts.models import IssuedVia
from accounts.tokens.issue import issue_tokens

ISSUED_VIA = {
    "authorization_code": IssuedVia.AUTHORIZATION_CODE,
}


def new_access_token(request: Any, refresh_token: bool = False) -> str:
    """Issue a pair; store its refresh token on the request for `new_refresh_token`.

    Raises InvalidGrantError.
    """
    grant = getattr(request, "grant", None)
    try:
        pair = issue_tokens(
            request.user,
            issued_via=ISSUED_VIA[request.grant_type],
            scope=" ".join(request.scopes),
            client_id=request.client.client_id,
            address=str(request.headers.get("REMOTE_ADDR") or ""),
            refresh=grant is not None,
            opaque=True,
            family=grant.family if grant else None,
        )
    except InvalidGrant as error:
        raise InvalidGrantError(str(error), request=request) from error
    request.issued_refresh = pair.refresh
    return pair.access


def new_refresh_token(request: Any, refresh_token: bool = False) -> str:
    """The refresh token that `new_access_token` issued; the toolkit calls it next."""
    return str(request.issued_refresh)
