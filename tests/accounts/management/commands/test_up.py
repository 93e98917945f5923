"""`manage.py up`: what it prepares, refuses, prints and starts."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from accounts.authentication.passwords.hashers import prehashed_password
from accounts.management.commands import up
from accounts.models import RoleAssignment, SigningKey, User
from tests.support.commands import new_events, refusal, run_command
from tests.support.ports import free_port
from tests.support.users import unguarded_users

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kept_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[Any]:
    """What would replace this process."""
    calls: list[Any] = []
    settings.PORT = free_port()
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    monkeypatch.setattr(connection, "close", lambda: calls.append("closed"))
    monkeypatch.setattr(up, "uncollected", lambda: False)
    return calls


def test_the_server_starts_with_our_protocol(
    carol: User, started: list[Any], settings: Any
) -> None:
    settings.HOST, settings.WORKERS = "127.0.0.1", 3
    settings.ISSUER_URL = "http://h.example"
    told = run_command("up")
    closed, (program, command) = started
    assert closed == "closed" and program == sys.executable
    assert command == [
        *(sys.executable, "-m", "uvicorn", "config.asgi:application"),
        *("--host", "127.0.0.1", "--port", str(settings.PORT)),
        *("--workers", "3", "--no-server-header", "--no-proxy-headers"),
        *("--http", "config.server.timeouts:TimeoutProtocol", "--no-access-log"),
        *("--log-level", "warning", "--lifespan", "on"),
        *("--loop", "config.server.event_loop:AcceptingLoop"),
        *("--timeout-graceful-shutdown", "5"),
    ]
    assert "http://h.example/admin/" in told and settings.RESOURCE_URL in told
    assert "First admin" not in told


def test_the_server_can_restart_when_code_changes(
    carol: User, started: list[Any], settings: Any, tmp_path: Path
) -> None:
    """uvicorn reloads one process; it watches the apps too."""
    settings.WORKERS, settings.EXTRA_APPS = 3, ["django.contrib.humanize"]
    run_command("up", "--reload")
    command = started[1][1]
    watched = [b for a, b in pairwise(command) if a == "--reload-dir"]
    assert "--reload" in command and "--workers" not in command
    assert watched[0] == str(settings.BASE_DIR) or watched[1] == str(settings.BASE_DIR)
    assert any(folder.endswith("humanize") for folder in watched) and len(watched) == 2


@pytest.mark.parametrize("named", ["accounts", "accounts.apps.AccountsConfig"])
def test_folders_of_extra_apps_are_watched(settings: Any, named: str) -> None:
    settings.EXTRA_APPS = [named]
    folders = [str(settings.BASE_DIR), apps.get_app_config("accounts").path]
    expected = [part for folder in folders for part in ("--reload-dir", folder)]
    assert up.reload_folders() == expected


def test_an_ipv6_address_is_bound_without_brackets(
    carol: User, started: list[Any], settings: Any
) -> None:
    settings.HOST = "[::1]"
    run_command("up")
    assert started[1][1][5] == "::1"


def test_files_of_this_process_are_private(carol: User, started: list[Any]) -> None:
    run_command("up")
    assert os.umask(0) == 0o077


def test_production_is_refused(settings: Any, started: list[Any]) -> None:
    settings.ENVIRONMENT = "production"
    assert refusal("up").startswith("`up` is for development only.")
    assert started == []


def test_a_taken_port_is_refused_before_the_preparation(
    started: list[Any], settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(up.Command, "prepare", lambda _self: 1 / 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings.HOST, settings.PORT = "127.0.0.1", taken.getsockname()[1]
        told = refusal("up")
    assert f"choose another: PORT={settings.PORT % 65535 + 1} make serve" in told
    assert started == []


def test_an_address_of_another_machine_is_refused(
    started: list[Any], settings: Any
) -> None:
    """Another PORT would not fix it."""
    settings.HOST = "203.0.113.9"
    assert "set HOST to an address of this machine" in refusal("up")
    assert started == []


@pytest.mark.parametrize(
    ("number", "port", "told"),
    [
        (
            errno.EADDRINUSE,
            8000,
            "h:8000 is not available (why); choose another: PORT=8001",
        ),
        (errno.EACCES, 80, "PORT=81 make serve"),
        (errno.EADDRINUSE, 65535, "PORT=1 make serve"),
        (errno.EADDRNOTAVAIL, 80, "set HOST to an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_used_has_a_remedy(
    settings: Any, number: int, port: int, told: str
) -> None:
    settings.HOST, settings.PORT = "h", port
    assert told in up.listen_remedy(OSError(number, "why"))


def test_only_preparing_needs_no_port(
    carol: User, started: list[Any], settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(up.Command, "check_port", lambda _self: 1 / 0)
    assert run_command("up", "--prepare-only") == "" and started == []


def test_a_database_error_has_a_remedy(started: list[Any], monkeypatch: Any) -> None:
    def prepare(_self: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(up.Command, "prepare", prepare)
    assert "locked by another process" in refusal("up", "--prepare-only")


@pytest.mark.parametrize("stale", [True, False])
def test_stale_parts_are_prepared(
    carol: User, started: list[Any], monkeypatch: Any, stale: bool
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    plan = ["a migration"] if stale else []
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_a: plan)
    monkeypatch.setattr(up, "uncollected", lambda: stale)
    monkeypatch.setattr(up, "call_command", lambda name, **o: calls.append((name, o)))
    SigningKey.objects.all().delete()
    told = run_command("up", "--prepare-only")
    quiet = {"verbosity": 0, "interactive": False}
    expected = [("migrate", quiet), ("collectstatic", quiet)] if stale else []
    assert calls == expected and ("Preparing the database" in told) is stale
    assert SigningKey.objects.filter(state="active").count() == 1


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    """An installation without superusers."""
    unguarded_users().filter(is_superuser=True).delete()
    for name in ("USERNAME", "PASSWORD", "EMAIL"):
        monkeypatch.delenv(f"DJANGO_SUPERUSER_{name}", raising=False)


def test_the_first_admin_gets_a_random_password(nobody: None) -> None:
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("up", "--prepare-only")))
    admin = User.objects.get(username="admin")
    password = told[0].partition("Password      ")[2].split()[0]
    assert admin.check_password(password) and len(password) == 20
    assert admin.is_superuser and admin.is_staff
    row = RoleAssignment.objects.get(user=admin)
    assert (row.role.name, row.reason) == ("Admin", "first admin")
    assert found[-2:] == [
        ("command line", "user.added", "admin", ""),
        ("command line", "role.granted", "admin has Admin", "first admin"),
    ]


def test_a_given_password_is_not_printed(nobody: None, monkeypatch: Any) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_USERNAME", "root")
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "given-horse-1")
    monkeypatch.setenv("DJANGO_SUPERUSER_EMAIL", "root@h.example")
    told = run_command("up", "--prepare-only")
    root = User.objects.get(username="root")
    assert root.check_password("given-horse-1") and root.email == "root@h.example"
    assert "First admin   root" in told and "Password" not in told


def test_a_second_process_adds_no_second_admin(nobody: None, monkeypatch: Any) -> None:
    """Both may hash a password; the one that writes second finds the first."""
    hashed = prehashed_password

    def meanwhile(raw: str) -> Any:
        if not User.objects.filter(is_superuser=True).exists():
            User.objects.create(username="first", is_superuser=True)
        return hashed(raw)

    monkeypatch.setattr(up, "prehashed_password", meanwhile)
    assert "First admin" not in run_command("up", "--prepare-only")
    assert [user.username for user in User.objects.filter(is_superuser=True)] == [
        "first"
    ]


def test_static_files_are_collected_when_one_is_newer(
    settings: Any, tmp_path: Path
) -> None:
    settings.STATIC_ROOT = tmp_path
    assert up.uncollected()
    manifest = tmp_path / "staticfiles.json"
    manifest.touch()
    assert not up.uncollected()
    os.utime(manifest, (0, 0))
    assert up.uncollected()
