"""manage.py verify_audit after a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import pytest

from accounts.models.audit.seals import EVENTS_PER_SEAL
from tests.support import fork_server
from tests.support.server import prepared_folder, run_manage

pytestmark = pytest.mark.once
OLD = timedelta(days=400)
SEALS = 10
"""Enough for a kill between two of them."""
CONTINUE = """
from django.core.management import call_command
for command in ("verify_audit", "purge", "verify_audit"):
    call_command(command)
"""
EVENT = (
    "INSERT INTO accounts_auditevent (at, action, actor, client_id, token_id, address, "
    "object, decision, reason, via, outcome, request_id, changes) "
    "VALUES (?, 'test.happened', 'ana', '', '', '', '', '', '', '', '', '', '{}')"
)


class Installation:
    """A prepared installation on SQLite: its commands, and its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copytree(prepared_folder(), folder, dirs_exist_ok=True)
        env = {"DATA_DIR": str(folder), "DATABASE_URL": "", "EXTRA_APPS": ""}
        self.environment = {**os.environ, **env}

    def start(self, *arguments: str) -> fork_server.Forked:
        program = ["manage.py", *arguments]
        return fork_server.start(program, self.environment, self.folder / "out")

    def run(self, *arguments: str) -> tuple[int, str]:
        """(exit code, output)."""
        return run_manage(self.environment, *arguments)

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        """Run SQL on the file; the rows of the last statement."""
        with closing(sqlite3.connect(self.folder / "portico.sqlite3")) as found:
            for statement in statements:
                rows = found.execute(statement).fetchall()
            found.commit()
        return rows

    def filled(self, number: int, ago: timedelta) -> None:
        """Add and seal `number` events."""
        at = datetime.now(UTC).replace(tzinfo=None) - ago
        with closing(sqlite3.connect(self.folder / "portico.sqlite3")) as found:
            found.executemany(EVENT, [(str(at),)] * number)
            found.commit()
        code, output = self.run("seal_audit")
        assert code == 0, output


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    yield Installation(tmp_path)


def test_a_killed_purge_leaves_a_valid_chain(installation: Installation) -> None:
    """SIGKILL between deleting events and seals; the next run continues."""
    installation.sql(
        "DELETE FROM accounts_auditevent"
    )  # Today's events, none of them sealed.
    installation.filled(SEALS * EVENTS_PER_SEAL, OLD)
    count = "SELECT COUNT(*) FROM accounts_auditseal WHERE purged_at IS {} NULL"
    purge = installation.start("purge")
    while purge.poll() is None and not installation.sql(count.format("NOT"))[0][0]:
        time.sleep(0.005)
    purge.kill()
    assert purge.wait(10) == -signal.SIGKILL
    assert installation.sql(count.format(""))[0][0], "the purge was finished"
    code, output = installation.run("shell", "-c", CONTINUE)
    assert code == 0 and "AUDIT_RETENTION=365" in output, output
    assert installation.sql(
        "SELECT COUNT(*) FROM accounts_auditevent WHERE actor = 'ana'"
    ) == [(0,)]
