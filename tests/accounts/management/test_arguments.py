"""Arguments of commands, and errors of the database as advice."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from accounts.management import arguments
from accounts.management.errors import database_remedy
from accounts.models import Role, User

pytestmark = pytest.mark.django_db


def test_a_user_is_found_by_the_exact_name(alice: User) -> None:
    assert arguments.user_named("alice") == alice
    with pytest.raises(CommandError, match="no user al; .*manage.py add_user al"):
        arguments.user_named("al")


def test_a_role_is_found_by_the_exact_name() -> None:
    assert arguments.role_named("User").name == "User"
    with pytest.raises(CommandError, match="there are: Admin, Guest, User"):
        arguments.role_named("Us")
    Role.objects.all().delete()
    with pytest.raises(CommandError, match="there are: none"):
        arguments.role_named("User")


def test_a_file_is_read_or_explained(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00")
    assert arguments.file_named(str(tmp_path / "x")) == b"\x00"
    with pytest.raises(CommandError, match=r"Is a directory\."):
        arguments.file_named(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "valid"),
    [("x" * 255, True), ("", True), ("x" * 256, False), ("\x00", False)],
)
def test_a_text_fits_its_column(text: str, valid: bool) -> None:
    if valid:
        assert arguments.short(text) == text
        return
    with pytest.raises(ArgumentTypeError, match="at most 255"):
        arguments.short(text)


def test_events_of_commands_have_one_actor() -> None:
    assert arguments.ACTOR == "command line"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("database is locked", "locked by another process"),
        ("unable to open database file", "/data is not writable; set DATA_DIR"),
        ("attempt to write a readonly database", "/data is not writable"),
        (
            "no such table: x",
            "schema is incomplete (no such table: x); run manage.py mig",
        ),
        ('relation "x"\n does not exist', 'incomplete (relation "x" does not exist)'),
        (
            "connection refused",
            "does not work (connection refused); check DATABASE_URL",
        ),
        ("", "does not work (no detail)"),
    ],
)
def test_a_database_error_has_a_remedy(settings: Any, text: str, told: str) -> None:
    settings.DATA_DIR = Path("/data")
    assert told in database_remedy(OperationalError(text))
