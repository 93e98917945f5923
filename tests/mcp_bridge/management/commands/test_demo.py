"""`manage.py demo`: sample users, in development only."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent, RoleAssignment, User
from mcp_bridge.management.commands import demo
from mcp_bridge.management.commands.demo import PASSWORD, USERS

pytestmark = pytest.mark.django_db


def output() -> str:
    written = io.StringIO()
    call_command("demo", stdout=written)
    return written.getvalue()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fixtures that are loaded, without loading them."""
    paths: list[str] = []

    def load(command: str, path: str, verbosity: int) -> None:
        assert (command, verbosity) == ("loaddata", 0)
        paths.append(path)

    monkeypatch.setattr(demo, "call_command", load)
    return paths


@pytest.mark.parametrize("environment", ["production", "staging", ""])
def test_sample_users_exist_in_development_only(
    settings: Any, loaded: list[str], environment: str
) -> None:
    """Everybody knows their password."""
    settings.ENVIRONMENT = environment
    with pytest.raises(CommandError, match="needs ENVIRONMENT=development"):
        output()
    assert not User.objects.filter(username__in=USERS).exists() and loaded == []


def test_three_people_are_added_and_recorded(settings: Any, loaded: list[str]) -> None:
    settings.ENVIRONMENT = "development"
    assert output().splitlines() == [
        f"alice  password {PASSWORD}  role User",
        f"bob  password {PASSWORD}  role Guest",
        f"carol  password {PASSWORD}  role Admin",
    ]
    users = User.objects.order_by("username")
    columns = ("username", "is_staff", "is_superuser")
    assert list(users.values_list(*columns)) == [
        ("alice", False, False),
        ("bob", False, False),
        ("carol", True, True),
    ]
    assert all(user.check_password(PASSWORD) for user in users)
    grants = RoleAssignment.objects.order_by("user__username")
    assert list(grants.values_list("user__username", "role__name", "reason")) == [
        ("alice", "User", "demo"),
        ("bob", "Guest", "demo"),
        ("carol", "Admin", "demo"),
    ]
    events = AuditEvent.objects.filter(reason="demo").order_by("pk")
    assert list(events.values_list("action", "actor", "object")) == [
        ("user.added", "command line", "alice"),
        ("role.granted", "command line", "alice has User"),
        ("user.added", "command line", "bob"),
        ("role.granted", "command line", "bob has Guest"),
        ("user.added", "command line", "carol"),
        ("role.granted", "command line", "carol has Admin"),
    ]


def test_existing_users_do_not_change(settings: Any, loaded: list[str]) -> None:
    settings.ENVIRONMENT = "development"
    for name in USERS:
        User.objects.create(username=name, password="!")
    assert output() == "alice, bob and carol exist already.\n"
    assert set(User.objects.values_list("password", "is_staff")) == {("!", False)}
    assert not RoleAssignment.objects.exists()
    User.objects.get(username="bob").delete()
    assert output() == f"bob  password {PASSWORD}  role Guest\n"


def test_data_of_installed_apps_is_loaded(
    settings: Any,
    loaded: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.ENVIRONMENT = "development"
    for name in USERS:
        User.objects.create(username=name, password="!")
    fixture = tmp_path / "with" / "fixtures" / "demo.json"
    fixture.parent.mkdir(parents=True)
    fixture.touch()
    configs = [SimpleNamespace(path=tmp_path / name) for name in ("with", "without")]
    monkeypatch.setattr(apps, "get_app_configs", lambda: configs)
    command = demo.Command(stdout=io.StringIO())
    command.handle()
    assert loaded == [str(fixture)]
