"""A command that fails in the middle has changed nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import AuditEvent, OAuthClient, Role, RoleAssignment, User
from tests.support.commands import run_command
from tests.support.users import unguarded_users

pytestmark = pytest.mark.django_db
ACCOUNTS = "accounts.management.commands"


def counts() -> tuple[int, ...]:
    models = (User, OAuthClient, RoleAssignment)
    return tuple(model._default_manager.count() for model in models)


COMMANDS: list[tuple[str, str, list[str], int]] = [
    (ACCOUNTS, "add_client", ["c", "--redirect-uri", "https://c.example/"], 1),
    (ACCOUNTS, "add_user", ["zoe", "--role", "User"], 1),
    (ACCOUNTS, "add_user", ["zoe", "--role", "User"], 2),
    (ACCOUNTS, "grant_role", ["alice", "Admin"], 1),
    (ACCOUNTS, "up", ["--prepare-only"], 1),
    ("mcp_bridge.management.commands", "demo", [], 2),
]
"""Package, command, arguments, and which of its events cannot be recorded."""


@pytest.mark.parametrize(
    ("package", "name", "arguments", "failing"),
    COMMANDS,
    ids=[f"{name}-{failing}" for _p, name, _a, failing in COMMANDS],
)
def test_what_cannot_be_recorded_is_not_done(
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    name: str,
    arguments: list[str],
    failing: int,
) -> None:
    module: Any = importlib.import_module(f"{package}.{name}")
    recorded: Callable[..., Any] = module.record
    left = [failing]

    def record(*about: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("no record")
        return recorded(*about, **more)

    if name == "up":
        unguarded_users().filter(is_superuser=True).delete()
        monkeypatch.setattr(module, "uncollected", lambda: False)
    monkeypatch.setattr(module, "record", record)
    before = counts()
    with pytest.raises(RuntimeError, match="no record"):
        run_command(name, *arguments)
    assert counts() == before


def test_a_role_that_cannot_be_withdrawn_leaves_no_event(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def withdraw(row: Any, **about: Any) -> int:
        raise RuntimeError("not withdrawn")

    monkeypatch.setattr(RoleAssignment, "withdraw", withdraw)
    before = AuditEvent.objects.count()
    with pytest.raises(RuntimeError, match="not withdrawn"):
        run_command("revoke_role", "alice", "User")
    assert AuditEvent.objects.count() == before
    assert Role.objects.filter(assignments__user=alice).exists()
