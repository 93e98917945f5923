"""A deletion revokes first, however the row is deleted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db.models import Model
from django.db.models.signals import pre_delete

from accounts.authorization.deletions import connect_deletions
from accounts.models import AuditEvent, IssuedToken, OAuthClient, RevokedToken, User
from accounts.tokens.issue import issue_tokens
from tests.support.users import account, public_client

pytestmark = pytest.mark.django_db


def reasons(jti: str) -> list[str]:
    return [
        f"{event.actor}:{event.reason}"
        for event in AuditEvent.objects.filter(token_id=jti, action="token.revoked")
    ]


@pytest.mark.parametrize(
    "delete",
    [
        lambda user: user.delete(),
        lambda user: User.objects.filter(pk=user.pk).delete(),
    ],
    ids=["row", "queryset"],
)
def test_a_deleted_account_loses_its_tokens(delete: Callable[[User], object]) -> None:
    user, other = account("u"), account("other")
    row = issue_tokens(user, issued_via="command", refresh=False).row
    kept = issue_tokens(other, issued_via="command", refresh=False).row
    delete(user)
    assert RevokedToken.objects.get(jti=row.jti).reason == "account deleted"
    assert reasons(row.jti) == ["command line:account deleted"]
    assert kept.state == "active"
    other.refresh_from_db()
    assert other.session_epoch == 0


@pytest.mark.parametrize(
    "delete",
    [
        lambda client: client.delete(),
        lambda client: OAuthClient.objects.filter(pk=client.pk).delete(),
    ],
    ids=["row", "queryset"],
)
def test_a_deleted_client_loses_its_tokens(
    delete: Callable[[OAuthClient], object],
) -> None:
    user = account("u")
    rows: dict[str, IssuedToken] = {}
    for client_id in ("one", "two"):
        public_client(client_id)
        rows[client_id] = issue_tokens(
            user, issued_via="device", client_id=client_id, refresh=False
        ).row
    delete(OAuthClient.objects.get(client_id="one"))
    assert reasons(rows["one"].jti) == ["command line:client deleted"]
    assert rows["one"].state == "revoked" and rows["two"].state == "active"


def test_each_kind_of_deletion_is_connected_once() -> None:
    connected: dict[type[Model], str] = {User: "portico-account"}
    connected[OAuthClient] = "portico-client"
    for model, uid in connected.items():
        assert pre_delete.disconnect(sender=model, dispatch_uid=uid)
    for _ in range(2):
        connect_deletions()
    for model, uid in connected.items():
        assert pre_delete.disconnect(sender=model, dispatch_uid=uid)
        assert not pre_delete.disconnect(sender=model, dispatch_uid=uid)
    connect_deletions()
    user, client = account("u"), OAuthClient.objects.get(client_id=public_client("c"))
    rows = [
        issue_tokens(user, issued_via="device", client_id=name, refresh=False).row
        for name in ("c", "portico")
    ]
    client.delete()
    user.delete()
    assert [reasons(row.jti) for row in rows] == [
        ["command line:client deleted"],
        ["command line:account deleted"],
    ]
