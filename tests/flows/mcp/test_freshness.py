"""A change applies to the next message on every worker, however it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import IssuedToken, RevokedToken, Role, RoleAssignment, User
from mcp_bridge.cache.triggers.install import install_triggers
from mcp_bridge.models import Primitive
from tests.support.mcp_client import ERAS_ONCE, McpClient, mcp_client
from tests.support.server import Portico, running_server
from tests.support.users import make_user

pytestmark = pytest.mark.usefixtures("default_users")
Way = Callable[[IssuedToken], Any]


def sql(statement: str, *values: Any) -> None:
    """Run SQL as another program would."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def revoke_by_sql(token: IssuedToken) -> None:
    """Add a row to the revocation table."""
    sql(
        "INSERT INTO accounts_revokedtoken (jti, until, revoked_at, revoked_by, reason)"
        " VALUES (%s, %s, %s, '', '')",
        token.jti,
        token.expires_at,
        timezone.now(),
    )


WAYS: dict[str, Way] = {
    "the verb": lambda t: t.__class__.objects.filter(pk=t.pk).revoke(
        actor=None, reason="test"
    ),
    "sql": revoke_by_sql,
    "the token's row": lambda t: t.delete(),
    "account off": lambda t: User.objects.filter(pk=t.user_id).update(is_active=False),
    "account gone by sql": lambda t: sql(
        "UPDATE accounts_issuedtoken SET user_id = NULL WHERE id = %s", t.pk
    ),
    "role gone": lambda t: RoleAssignment.objects.filter(user=t.user).delete(),
    "role over": lambda t: RoleAssignment.objects.filter(user=t.user).update(
        expires_at=timezone.now()
    ),
    "role empty": lambda t: Role.objects.get(name="User").scopes.clear(),
    "tool off": lambda t: Primitive.objects.filter(name="look").update(enabled=False),
    "tool needs more": lambda t: Primitive.objects.get(
        name="look"
    ).required_scopes.clear(),
}


@contextmanager
def restore_access() -> Iterator[None]:
    """Restores the role and the tool afterwards."""
    role, tool = Role.objects.get(name="User"), Primitive.objects.get(name="look")
    scopes, needs = list(role.scopes.all()), list(tool.required_scopes.all())
    try:
        yield
    finally:
        role.scopes.set(scopes)
        tool.required_scopes.set(needs)
        Primitive.objects.filter(name="look").update(enabled=True)


@pytest.mark.spec("a committed change applies to the next message on every worker")
@pytest.mark.parametrize("how", WAYS)
def test_a_committed_change_applies_to_the_next_message(
    workers: Portico, how: str
) -> None:
    """No request is decided by the old state."""
    make_user("erin", "User")
    pair = workers.issued("erin")
    clients = [McpClient(workers, pair.access) for _ in range(2)]
    bystander = mcp_client(workers, "alice")
    for _ in range(6):
        assert all(client.allowed("look") for client in clients)
    with restore_access():
        WAYS[how](pair.row)
        assert not any(client.allowed("look") for client in clients * 6)
        if "role e" not in how and "tool" not in how:
            assert bystander.allowed("look")
    RevokedToken.objects.filter(jti=pair.row.jti).delete()


@pytest.mark.parametrize("era", ERAS_ONCE)
def test_reverting_a_change_applies_too(workers: Portico, era: str) -> None:
    client = mcp_client(workers, "alice", era)
    mine = Primitive.objects.filter(name="look")
    for _ in range(5):
        assert client.allowed("look")
        mine.update(enabled=False)
        assert not client.allowed("look")
        mine.update(enabled=True)


def test_a_server_without_a_trigger_is_slow_and_correct(
    rows: None, folder: Any
) -> None:
    """A missing trigger disables the cache and logs an error."""
    name = "portico_mcp_bridge_primitive_update"
    on = "" if connection.vendor == "sqlite" else " ON mcp_bridge_primitive"
    sql(f"DROP TRIGGER {name}{on}")
    try:
        with running_server(folder) as careful:
            client = mcp_client(careful, "alice")
            assert client.allowed("look")
            Primitive.objects.filter(name="look").update(enabled=False)
            assert not client.allowed("look")
            assert "Caching is disabled" in careful.log.read_text()
    finally:
        install_triggers()
        Primitive.objects.filter(name="look").update(enabled=True)
