"""Copy the server's database to a file, and replace it by such a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from django.core.management import CommandError
from django.db import DatabaseError, connection

from accounts.crypto.private_files import SIDECARS, database_files
from accounts.management.errors import database_remedy
from accounts.management.postgresql_programs import run_program

SQLITE_START, POSTGRESQL_START = b"SQLite format 3\0", b"PGDMP"
"""The first bytes of a copy: of SQLite, and of pg_dump's custom format."""
KINDS = {"sqlite": SQLITE_START, "postgresql": POSTGRESQL_START}
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def described() -> str:
    """The server's database, without its password."""
    options = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"the SQLite database {sqlite_file()}"
    host = options.get("HOST") or "this host"
    return f"the PostgreSQL database {options['NAME']} on {host}"


def sqlite_file() -> Path:
    """The file of the settings. Raises CommandError if it is not on disk."""
    files = database_files()
    if not files:
        raise CommandError("The database is in memory only.")
    return files[0].absolute()


def copy_to(file: Path) -> None:
    """Write a consistent copy while the server runs. Raises CommandError.

    An older copy with this name stays until the new one is complete.
    """
    partial = file.with_name(f"{file.name}.partial")
    with private_partial(partial):
        if connection.vendor == "sqlite":
            copy_sqlite(sqlite_file(), partial)
        else:
            require_tables()
            dump = ("--format=custom", "--no-owner", f"--file={partial}")
            run_program("pg_dump", *dump)
        os.replace(partial, file)


@contextmanager
def private_partial(path: Path) -> Iterator[None]:
    """A new file that only its owner can read; removed after a failure."""
    try:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from error
    try:
        yield
    finally:
        for end in SIDECARS:
            Path(f"{path}{end}").unlink(missing_ok=True)


def opened(path: Path) -> sqlite3.Connection:
    """A connection that creates no file."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy with SQLite's backup API and check the copy. Raises CommandError."""
    require_portico(source)
    try:
        with closing(opened(source)) as rows, closing(sqlite3.connect(target)) as copy:
            rows.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise CommandError(f"{source} cannot be copied: {error}.") from error
    require_portico(target)


def require_portico(path: Path) -> None:
    """Raises CommandError unless it is an undamaged database of Portico."""
    try:
        with closing(opened(path)) as rows:
            rows.execute("SELECT 1 FROM accounts_user LIMIT 1")
            damage = rows.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise CommandError(f"{path} is no database of Portico: {error}.") from error
    if damage != "ok":
        raise CommandError(f"{path} is damaged: {damage}.")


def require_tables() -> None:
    """Raises CommandError unless the PostgreSQL database has Portico's tables."""
    try:
        tables = connection.introspection.table_names()
    except DatabaseError as error:
        raise CommandError(database_remedy(error)) from error
    if "accounts_user" not in tables:
        raise CommandError(f"{described()} is no database of Portico.")


def require_copy(file: Path) -> None:
    """Raises CommandError unless `file` is a copy for the server's kind of database."""
    try:
        with file.open("rb") as opened_file:
            start = opened_file.read(len(SQLITE_START))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}.") from error
    kinds = [NAMES[kind] for kind, first in KINDS.items() if start.startswith(first)]
    if not kinds:
        raise CommandError(f"{file} is no copy that `backup` made.")
    if kinds != [NAMES[connection.vendor]]:
        raise CommandError(
            f"{file} is a copy of {kinds[0]}, but the settings name {described()}: "
            "correct DATABASE_URL."
        )
    if connection.vendor == "sqlite":
        require_portico(file)


def replace_by(file: Path) -> None:
    """Replace the server's database. Raises CommandError; then nothing has changed."""
    connection.close()
    if connection.vendor == "sqlite":
        replace_sqlite(file, sqlite_file())
    else:
        clean = ("--clean", "--if-exists", "--no-owner", "--single-transaction")
        run_program("pg_restore", *clean, "--exit-on-error", str(file))


def replace_sqlite(file: Path, target: Path) -> None:
    """Copy beside the target, then rename: the target is never half a file."""
    partial = target.with_name(f"{target.name}.new")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with private_partial(partial):
        shutil.copyfile(file, partial)
        for end in SIDECARS[1:]:
            Path(f"{target}{end}").unlink(missing_ok=True)
        os.replace(partial, target)
