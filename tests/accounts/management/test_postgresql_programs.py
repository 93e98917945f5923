"""pg_dump and pg_restore get no secret as an argument."""

from __future__ import annotations

import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.management import postgresql_programs
from accounts.management.postgresql_programs import connection_options, run_program

pytestmark = pytest.mark.once
OPTIONS = {"host": "db.example", "user": "dba", "password": "S3cret Pw"}


def test_no_option_of_the_connection_is_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every account of the host can list the arguments of a process."""
    started: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], **options: Any) -> Any:
        started.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(postgresql_programs, "connection_options", OPTIONS.copy)
    run_program("pg_dump", "--no-owner")
    ((command, environment),) = started
    assert command[0] == "/usr/bin/pg_dump" and command[-1] == "--no-owner"
    assert not [word for word in command for value in OPTIONS.values() if value in word]
    assert environment["PGPASSWORD"] == OPTIONS["password"]


def test_only_options_of_libpq_with_a_value_are_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty variable would hide the program's own default, as ~/.pgpass."""
    given = {"dbname": "portico", "user": "", "password": "", "port": 5433}
    own = {"cursor_factory": object, "context": object(), "prepare_threshold": None}
    server = SimpleNamespace(
        get_connection_params=lambda: {**given, **own, "sslmode": "require"}
    )
    monkeypatch.setattr(postgresql_programs, "connection", server)
    expected = {"dbname": "portico", "port": "5433", "sslmode": "require"}
    assert connection_options() == expected
