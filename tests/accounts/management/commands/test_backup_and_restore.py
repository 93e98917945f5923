"""`backup` and `restore`: what they refuse, and what a restore ends."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from accounts.management import database_copies, postgresql_programs
from accounts.management.commands import restore
from accounts.models import IssuedToken, OAuthDeviceGrant, User
from accounts.tokens.issue import issue_tokens
from tests.support.commands import new_events, refusal, run_command
from tests.support.model_rows import device_row, person, token_row
from tests.support.users import public_client

NEWER = "INSERT INTO accounts_user VALUES ('bob')"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server's SQLite file, open as in a running server, with a user."""
    path = tmp_path / "data" / "portico.sqlite3"
    path.parent.mkdir()
    settings = {"NAME": str(path)}
    away = SimpleNamespace(vendor="sqlite", settings_dict=settings, close=lambda: None)
    monkeypatch.setattr(database_copies, "connection", away)
    monkeypatch.setattr(database_copies, "sqlite_file", lambda: path)
    with closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute("PRAGMA journal_mode=WAL")
        server.execute("CREATE TABLE accounts_user (username TEXT)")
        server.execute("INSERT INTO accounts_user VALUES ('alice')")
        yield path


def users(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as rows:
        found = rows.execute("SELECT username FROM accounts_user").fetchall()
    return [name for (name,) in found]


def changed(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as rows:
        rows.execute(statement)


def test_a_copy_of_a_served_file_is_complete_and_private(
    served: Path, tmp_path: Path
) -> None:
    """The rows of the write-ahead log are in it, and no other file is needed."""
    before = os.umask(0o022)
    try:
        run_command("backup", str(tmp_path / "copy"))
    finally:
        os.umask(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]
    assert users(tmp_path / "copy") == ["alice"]
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("ALTER TABLE accounts_user RENAME TO users", "no database of Portico"),
        ("", "cannot be opened"),
    ],
)
def test_what_is_no_database_of_portico_is_not_copied(
    served: Path, tmp_path: Path, statement: str, problem: str
) -> None:
    """A left-over or missing file is an error, and the older copy stays."""
    (tmp_path / "copy").write_bytes(b"older")
    if statement:
        changed(served, statement)
    else:
        for path in served.parent.iterdir():
            path.unlink()
    with pytest.raises(CommandError, match="no database of Portico"):
        run_command("backup", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]
    assert bool(statement) or not served.exists()


def test_a_folder_that_does_not_exist_is_named(served: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run_command("backup", str(tmp_path / "no" / "copy"))


def test_a_copy_replaces_the_file_and_its_log(served: Path, tmp_path: Path) -> None:
    """Old -wal and -shm files would be replayed into the new database."""
    database_copies.copy_to(tmp_path / "copy")
    changed(served, NEWER)
    assert Path(f"{served}-wal").exists()
    database_copies.require_copy(tmp_path / "copy")
    database_copies.replace_by(tmp_path / "copy")
    assert [path.name for path in served.parent.iterdir()] == [served.name]
    assert stat.S_IMODE(served.stat().st_mode) == 0o600
    assert users(served) == ["alice"]


@pytest.mark.parametrize("linked", [False, True])
def test_what_an_interrupted_copy_left_is_replaced(
    served: Path, tmp_path: Path, linked: bool
) -> None:
    """Not written to: others may be able to read it, or it may be another file."""
    copy, other = tmp_path / "copy", tmp_path / "other"
    other.write_bytes(b"left over")
    for partial in (tmp_path / "copy.partial", Path(f"{served}.new")):
        if linked:
            partial.symlink_to(other)
        else:
            partial.write_bytes(b"left over")
            partial.chmod(0o644)
    database_copies.copy_to(copy)
    changed(served, NEWER)
    database_copies.replace_by(copy)
    for path in (copy, served):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600 and users(path) == ["alice"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data", "other"]
    assert [path.name for path in served.parent.iterdir()] == [served.name]
    assert other.read_bytes() == b"left over"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no copy that `backup` made"),
        (b"SELECT 1;", "no copy that `backup` made"),
        (b"PGDMP\1\2", "a copy of PostgreSQL, but the settings name the SQLite"),
        (b"SQLite format 3\0" + bytes(100), "no database of Portico"),
    ],
)
def test_another_file_is_not_restored(
    served: Path, tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "copy").write_bytes(content)
    assert problem in refused_restore(tmp_path / "copy")
    assert "No such file" in refused_restore(tmp_path / "missing")
    assert users(served) == ["alice"]


def refused_restore(file: Path) -> str:
    with pytest.raises(CommandError) as refused:
        run_command("restore", "--noinput", str(file))
    return str(refused.value)


def test_a_restore_is_confirmed(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database_copies.copy_to(tmp_path / "copy")
    for terminal, problem in ((False, "--noinput"), (True, "Nothing was changed")):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda t=terminal: t))
        monkeypatch.setattr("builtins.input", lambda question: "no")
        with pytest.raises(CommandError, match=problem):
            run_command("restore", str(tmp_path / "copy"))
    assert users(served) == ["alice"]


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of a restore that this process cannot take on its test database."""
    steps: list[str] = []
    for name in ("require_copy", "replace_by"):
        monkeypatch.setattr(
            database_copies, name, lambda file, step=name: steps.append(step)
        )
    monkeypatch.setattr(
        restore, "call_command", lambda name, **options: steps.append(name)
    )
    return steps


@pytest.mark.django_db
@pytest.mark.parametrize("options", [[], ["--keep-tokens"]])
def test_a_restore_ends_what_may_have_been_ended_since(
    replaced: list[str], alice: User, options: list[str]
) -> None:
    """Browsers and codes always, also without an account; tokens unless kept."""
    device_row("one")
    browser = Client()
    browser.force_login(alice)
    Session.objects.create(session_key="x" * 32, expire_date=timezone.now())
    pair = issue_tokens(alice, issued_via="command", client_id=public_client("one"))
    orphan = token_row(person("gone"))
    IssuedToken.objects.filter(pk=orphan.pk).update(user=None)
    epoch = alice.session_epoch
    events = new_events(lambda: run_command("restore", "--noinput", "copy", *options))
    assert replaced == ["require_copy", "replace_by", "migrate"]
    alice.refresh_from_db()
    assert not Session.objects.exists() and alice.session_epoch == epoch + 1
    families = [pair.row.family, orphan.family]
    live = IssuedToken.objects.live().filter(family__in=families).values("family")
    assert live.distinct().count() == (2 if options else 0)
    assert not OAuthDeviceGrant.objects.exists()
    last = ("command line", "database.restored", "copy", "")
    assert events[-1] == last


@pytest.mark.django_db
@pytest.mark.parametrize("step", ["replace", "migrate", "revoke"])
def test_a_failing_step_stops_the_restore(
    replaced: list[str], alice: User, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise CommandError("the disk is full")

    if step == "replace":
        monkeypatch.setattr(database_copies, "replace_by", fail)
    elif step == "migrate":
        monkeypatch.setattr(restore, "call_command", fail)
    else:
        monkeypatch.setattr(restore.Command, "end_access", fail)
    assert refusal("restore", "--noinput", "copy") == "the disk is full"


REPORTING = """#!/bin/sh
{ echo "$@"; echo "$PGPASSWORD"; cat "$PGSERVICEFILE"; } > "$REPORT"
exit "${FAILS:-0}"
"""


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pg_dump was given: arguments, password, service file."""
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text(REPORTING)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("REPORT", str(tmp_path / "report"))
    given = {
        "dbname": "portico",
        "password": "word of the role",
        "sslpassword": "word of the key",
        "keepalives_idle": 5,
        "prepare_threshold": None,
    }
    away = SimpleNamespace(get_connection_params=lambda: given)
    monkeypatch.setattr(postgresql_programs, "connection", away)
    return tmp_path / "report"


def test_no_program_of_postgresql_gets_a_secret_as_an_argument(report: Path) -> None:
    """Every account of the host can list the arguments of a process."""
    postgresql_programs.run_program("pg_dump", "--format=custom")
    arguments, password, *service = report.read_text().splitlines()
    assert arguments == "--dbname=service=portico --format=custom"
    assert password == "word of the role"
    assert service[0] == "[portico]"
    assert set(service[1:]) == {"sslpassword=word of the key", "keepalives_idle=5"}


@pytest.mark.parametrize("code", ["1", "3"])
def test_a_failing_program_is_an_error(
    report: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("FAILS", code)
    with pytest.raises(CommandError, match="pg_dump failed"):
        postgresql_programs.run_program("pg_dump")


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CommandError, match="pg_dump is not installed"):
        postgresql_programs.run_program("pg_dump")


def test_an_option_that_no_variable_carries_goes_to_a_private_file() -> None:
    options = {"service": "portico", "password": "word ", "sslpassword": "key"}
    with postgresql_programs.environment(options) as (variables, handles):
        assert variables["PGPASSWORD"] == "word "
        text = Path(variables["PGSERVICEFILE"]).read_text()
        assert text == "[portico]\nsslpassword=key\n" and len(handles) == 1
    options |= {"service": "own"}
    with (
        pytest.raises(CommandError, match="in the service own"),
        postgresql_programs.environment(options),
    ):
        pass


def test_the_size_of_a_copy_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(file: Path) -> None:
        file.write_bytes(bytes(2_540_000))

    monkeypatch.setattr(database_copies, "copy_to", copied)
    assert "(2.5 MB)" in run_command("backup", str(tmp_path / "copy"))


@pytest.mark.django_db
@pytest.mark.parametrize("answer", ["", "y", "YES", "yes please", " yes "])
def test_only_a_whole_yes_confirms_a_restore(
    replaced: list[str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if answer.strip() == "yes":
        assert run_command("restore", "copy").startswith("Restored ")
        assert replaced == ["require_copy", "replace_by", "migrate"]
        return
    assert refusal("restore", "copy") == "Nothing was changed."
    assert replaced == ["require_copy"]


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    """Its tables can be read, but an index is lost."""
    file = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as rows, rows:
        rows.execute("CREATE TABLE accounts_user (name TEXT UNIQUE)")
        rows.execute("INSERT INTO accounts_user VALUES ('alice')")
    database_copies.require_portico(file)
    with closing(sqlite3.connect(file)) as rows, rows:
        rows.execute("PRAGMA writable_schema=ON")
        rows.execute("DELETE FROM sqlite_master WHERE type = 'index'")
    with pytest.raises(CommandError, match=r"db\.sqlite3 is damaged: "):
        database_copies.require_portico(file)


def test_a_copy_is_checked_before_it_replaces_the_older_one(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk may have cut it."""
    (tmp_path / "copy").write_bytes(b"older")
    checked: list[Path] = []

    def require(path: Path) -> None:
        checked.append(path)
        if path != served:
            raise CommandError("damaged")

    monkeypatch.setattr(database_copies, "require_portico", require)
    with pytest.raises(CommandError, match="damaged"):
        database_copies.copy_to(tmp_path / "copy")
    assert checked == [served, tmp_path / "copy.partial"]
    assert (tmp_path / "copy").read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]


def test_a_database_in_memory_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_copies, "database_files", lambda: [])
    with pytest.raises(CommandError, match="in memory only"):
        database_copies.sqlite_file()


class Postgres:
    """The connection of a server on PostgreSQL, with these tables."""

    vendor = "postgresql"
    settings_dict = {"NAME": "portico", "HOST": "db.example", "PASSWORD": "s3cr3t"}

    def __init__(self, *tables: str, error: Exception | None = None) -> None:
        self.tables, self.error, self.introspection = tables, error, self
        self.closed = False

    def table_names(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return list(self.tables)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The programs that were run."""
    found: list[tuple[str, ...]] = []

    def run_program(program: str, *arguments: str) -> None:
        found.append((program, *arguments))

    monkeypatch.setattr(database_copies, "run_program", run_program)
    return found


def test_postgresql_is_copied_and_replaced_as_a_whole(
    programs: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore that fails leaves the database as it was."""
    server = Postgres("accounts_user", "other")
    monkeypatch.setattr(database_copies, "connection", server)
    file = tmp_path / "copy"
    database_copies.copy_to(file)
    database_copies.replace_by(file)
    assert server.closed, "an open connection would block it"
    assert programs == [
        ("pg_dump", "--format=custom", "--no-owner", f"--file={file}.partial"),
        (
            *("pg_restore", "--clean", "--if-exists", "--no-owner"),
            *("--single-transaction", "--exit-on-error", str(file)),
        ),
    ]
    assert database_copies.described() == (
        "the PostgreSQL database portico on db.example"
    )


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (Postgres(), "is no database of Portico"),
        (Postgres("other"), "is no database of Portico"),
        (Postgres(error=OperationalError("no route")), "no route"),
    ],
    ids=["empty", "other", "away"],
)
def test_another_database_of_postgresql_is_not_copied(
    programs: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: Postgres,
    problem: str,
) -> None:
    monkeypatch.setattr(database_copies, "connection", server)
    with pytest.raises(CommandError, match=problem):
        database_copies.copy_to(tmp_path / "copy")
    assert programs == [] and list(tmp_path.iterdir()) == []


def test_a_copy_of_sqlite_is_not_restored_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_copies, "connection", Postgres())
    (tmp_path / "copy").write_bytes(b"SQLite format 3\0")
    with pytest.raises(CommandError, match="is a copy of SQLite, but the settings"):
        database_copies.require_copy(tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"PGDMP")
    database_copies.require_copy(tmp_path / "copy")
