"""Readers of the change log: one read of one row inside every request.

`current_position()` starts its read after it was called. It returns the epoch and the
number of the last change; `changes_between()` returns the changes after a number. Both
raise DatabaseUnavailable on failure: without them nothing can be decided.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import connection

from mcp_bridge.cache.readers.base import ChangeReader
from mcp_bridge.cache.readers.sqlite import SqliteReader

logger = logging.getLogger(__name__)


def open_reader() -> ChangeReader:
    """The reader for this project's database."""
    if connection.vendor == "sqlite":
        return SqliteReader(str(connection.settings_dict["NAME"]))
    # A late import: psycopg takes 9 MB, and no worker on SQLite needs it.
    from mcp_bridge.cache.readers.postgresql import READ_TIMEOUT, PostgresReader

    excluded = {"context", "cursor_factory", "prepare_threshold", "pool"}
    options = connection.get_connection_params().items()
    parameters = {name: value for name, value in options if name not in excluded}
    reader = PostgresReader({"connect_timeout": READ_TIMEOUT, **parameters})
    reader.prepares = not settings.DATABASE_POOLER
    return reader
