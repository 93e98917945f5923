"""The toolkit's token generators."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from oauthlib.common import Request
from oauthlib.oauth2.rfc6749.errors import InvalidGrantError

from accounts.crypto.secrets import REFRESH_PREFIX, secret_hash
from accounts.models import IssuedToken, User
from accounts.oauth.toolkit.generators import new_access_token, new_refresh_token
from tests.support.oauth_requests import oauth_client
from tests.support.users import account

pytestmark = pytest.mark.django_db


def library_request(**changed: Any) -> Any:
    """A request of oauthlib, for alice."""
    known = {
        "user": account("alice", "User"),
        "client": oauth_client(),
        "grant": SimpleNamespace(family=uuid4()),
        "grant_type": "authorization_code",
        "scopes": ["mcp", "User.Read"],
        "headers": {"REMOTE_ADDR": "192.0.2.7"},
    }
    request = Request("/oauth/token")
    for name, value in {**known, **changed}.items():
        setattr(request, name, value)
    return request


def test_a_pair_is_issued_in_the_family_of_the_code() -> None:
    request = library_request()
    access, refresh = new_access_token(request), new_refresh_token(request)
    rows = IssuedToken.objects.all()
    assert {row.kind for row in rows} == {"access", "refresh"}
    assert {(r.family, r.scope, r.client_id, r.issued_via) for r in rows} == {
        (request.grant.family, "mcp User.Read", "app", "authorization_code")
    }
    assert {(r.user, r.issued_to) for r in rows} == {(request.user, "192.0.2.7")}
    assert access.count(".") == 2 and refresh.startswith(REFRESH_PREFIX)
    assert rows.filter(secret_hash=secret_hash(refresh)).exists()


@pytest.mark.parametrize("headers", [{}, {"REMOTE_ADDR": None}], ids=str)
def test_without_a_code_and_an_address_only_an_access_token_is_issued(
    headers: dict[str, Any],
) -> None:
    request = library_request(grant=None, headers=headers)
    assert new_access_token(request) and new_refresh_token(request) == ""
    row = IssuedToken.objects.get()
    assert (row.kind, row.issued_to) == ("access", "")


def test_no_other_grant_is_served_here() -> None:
    with pytest.raises(KeyError):
        new_access_token(library_request(grant_type="password"))


def test_an_ended_account_is_an_invalid_grant() -> None:
    request = library_request()
    User.objects.update(is_active=False)
    with pytest.raises(InvalidGrantError) as refused:
        new_access_token(request)
    assert refused.value.description == "The account was closed."
    assert refused.value.grant_type == "authorization_code"
    assert not IssuedToken.objects.exists()
