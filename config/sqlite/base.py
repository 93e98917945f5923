"""Django's SQLite backend; the threads of a process write one after the other."""

from __future__ import annotations

import os
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from config.sqlite.write_queue import WriteQueue

_queues: dict[str, WriteQueue] = {}
"""Database file -> the queue of this process."""
os.register_at_fork(after_in_child=_queues.clear)


def queue_of(line: DatabaseWrapper) -> WriteQueue:
    """The queue of the file to which this connection writes."""
    return _queues.setdefault(str(line.settings_dict["NAME"]), WriteQueue())


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits in a queue before BEGIN IMMEDIATE, at most `timeout` seconds.

    Without it, SQLite looks again after up to 0.1 s, and who looks at the right moment
    is next: some transactions wait many times as long as others.
    """

    held: WriteQueue | None = None

    def _start_transaction_under_autocommit(self) -> None:
        """Raises OperationalError."""
        queue = queue_of(self)
        if not queue.enter(self.settings_dict["OPTIONS"].get("timeout", 5)):
            raise OperationalError("database is locked")
        self.held = queue
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self.leave()
            raise

    def _commit(self) -> Any:
        result = super()._commit()  # type: ignore[misc]
        self.leave()
        return result

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self.leave()

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the next thread write, if this connection kept it waiting."""
        queue, self.held = self.held, None
        if queue is not None:
            queue.leave()
