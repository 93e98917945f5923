"""manage.py verify_audit on a tampered database and after a kill."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import pytest

from tests.support.server import ROOT, prepared_folder

pytestmark = pytest.mark.once
TODAY, OLD = timedelta(), timedelta(days=400)
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

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """(exit code, output)."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        """Run SQL on the file; the rows of the last statement."""
        with closing(sqlite3.connect(self.folder / "portico.sqlite3")) as found:
            for statement in statements:
                rows = found.execute(statement).fetchall()
            found.commit()
        return rows

    def filled(self, number: int, ago: timedelta) -> str:
        """Add and seal `count` events; the newest digest."""
        at = datetime.now(UTC).replace(tzinfo=None) - ago
        with closing(sqlite3.connect(self.folder / "portico.sqlite3")) as found:
            found.executemany(EVENT, [(str(at),)] * number)
            found.commit()
        code, output = self.run("seal_audit")
        assert code == 0, output
        return str(re.findall(r"digest ([0-9a-f]{64})", output)[-1])


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    yield Installation(tmp_path)


@pytest.mark.parametrize("ago", [TODAY, OLD])
def test_deleting_events_as_if_purged_is_found(
    installation: Installation, ago: timedelta
) -> None:
    """Covers events of today and those beyond retention."""
    head = installation.filled(1800, ago)
    installation.sql(
        "DELETE FROM accounts_auditevent",
        "UPDATE accounts_auditseal SET purged_at = '2026-01-01 00:00:00', marks = x''",
    )
    for options in ([], ["--head", head]):
        code, output = installation.run("verify_audit", *options)
        assert code == 1 and "The audit was tampered with: seal" in output, output


def test_a_killed_purge_leaves_a_valid_chain(installation: Installation) -> None:
    """SIGKILL between deleting events and seals; the next run continues."""
    installation.sql(
        "DELETE FROM accounts_auditevent"
    )  # Today's events, none of them sealed.
    installation.filled(30_000, OLD)
    count = "SELECT COUNT(*) FROM accounts_auditseal WHERE purged_at IS {} NULL"
    purge = installation.start("purge")
    while purge.poll() is None and not installation.sql(count.format("NOT"))[0][0]:
        time.sleep(0.005)
    purge.send_signal(signal.SIGKILL)
    purge.communicate()
    assert purge.returncode == -signal.SIGKILL
    code, output = installation.run("verify_audit")
    assert code == 0, output
    code, output = installation.run("purge")
    assert code == 0, output
    assert installation.sql(
        "SELECT COUNT(*) FROM accounts_auditevent WHERE actor = 'ana'"
    ) == [(0,)]
    code, output = installation.run("verify_audit")
    assert code == 0 and "AUDIT_RETENTION=365" in output, output
