"""The two databases of a copy: opening the target, and a snapshot of the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

TARGET = "copy_target"


class CopyRefused(Exception):
    """The copy cannot be made or is not equal; the message names the fix."""


@contextmanager
def opened_target(url: str) -> Iterator[BaseDatabaseWrapper]:
    """The database at this URL, as the alias TARGET. Raises CopyRefused."""
    target = connected(url, TARGET)
    connections.settings[TARGET] = target.settings_dict
    connections[TARGET] = target
    try:
        yield target
    finally:
        target.close()
        del connections[TARGET], connections.settings[TARGET]


def connected(url: str, alias: str) -> BaseDatabaseWrapper:
    """An open connection outside any pool. Raises CopyRefused."""
    try:
        entry = settings.DATABASE_FROM_URL(url)
    except ValueError as error:
        raise CopyRefused(f"The URL of the target is wrong: {error}") from error
    entry["OPTIONS"].pop("pool", None)
    configured = connections.configure_settings({DEFAULT_DB_ALIAS: entry})
    backend: Any = load_backend(entry["ENGINE"])
    target: BaseDatabaseWrapper = backend.DatabaseWrapper(
        configured[DEFAULT_DB_ALIAS], alias
    )
    try:
        target.ensure_connection()
    except Error as error:
        detail = " ".join(str(error).split())
        raise CopyRefused(
            f"The target cannot be opened ({detail}): start it, or correct its URL."
        ) from error
    return target


def database_label(database: BaseDatabaseWrapper) -> str:
    """Kind, host and name, without user and password."""
    known: dict[str, Any] = database.settings_dict
    host = known.get("HOST") or ""
    return " ".join(filter(None, [database.display_name, host, str(known["NAME"])]))


@contextmanager
def as_default(database: BaseDatabaseWrapper) -> Iterator[None]:
    """Make all code of this thread, commands included, use this database."""
    before = connections[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = database
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS] = before
        ContentType.objects.clear_cache()


@contextmanager
def snapshot(database: BaseDatabaseWrapper) -> Iterator[None]:
    """All reads in the block see the database as at its start; writers do not wait.

    Django's own transactions lock writers on SQLite, and on PostgreSQL each statement
    would see newer rows.
    """
    postgres = database.vendor == "postgresql"
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if postgres else "BEGIN"
    with database.cursor() as cursor:
        cursor.execute(begin)
        cursor.execute("SELECT number FROM mcp_bridge_changecounter")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
