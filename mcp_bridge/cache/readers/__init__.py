"""How a worker sees what has changed: a read of one row, made inside the request.

A reader's `look()` begins its read after it was called. It gives the epoch and the
number of the last change, `news()` the changes after a number. What goes wrong is
raised as Away, a DatabaseError: nothing can be decided.
"""

from __future__ import annotations

import logging

from django.db import connection

from mcp_bridge.cache.readers.base import ChangeReader
from mcp_bridge.cache.readers.sqlite import SqliteReader

logger = logging.getLogger(__name__)


def open_reader() -> ChangeReader:
    """The reader for this project's database."""
    if connection.vendor == "sqlite":
        return SqliteReader(str(connection.settings_dict["NAME"]))
    # Not at the top: psycopg is 9 MB, and no worker on SQLite needs it.
    from mcp_bridge.cache.readers.postgresql import PATIENCE, PostgresReader

    ours = {"context", "cursor_factory", "prepare_threshold", "pool"}
    given = connection.get_connection_params()
    parameters = {name: given[name] for name in given if name not in ours}
    return PostgresReader({"connect_timeout": PATIENCE, **parameters})
