"""SIGKILL under load: every answered call is audited (durable audit).

`KILLS` makes the run longer (see `python -m bench.reliability kills`).
"""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from accounts.models import AuditEvent
from tests.support.raw_load import SERVED, RawConnection, request_of
from tests.support.run_figures import write_figure
from tests.support.server import Portico, running_server

KILLS = int(os.environ.get("KILLS", "2"))
LINES = 8


class Load:
    """Calls on several connections until the server dies; the ids of answered calls."""

    def __init__(self, server: Portico, raw: str, most: int) -> None:
        self.server, self.request, self.most = server, request_of(server, raw), most
        self.answered: list[str] = []
        self.enough = threading.Event()

    def beat(self) -> None:
        line = RawConnection(self.server)
        try:
            while True:
                line.send(self.request)
                assert line.answer() == SERVED
                self.answered.append(line.request_id)
                if len(self.answered) >= self.most:
                    self.enough.set()
        except OSError:
            line.close()

    def until_killed(self) -> None:
        """Send load, then SIGKILL in the middle of it."""
        threads = [threading.Thread(target=self.beat) for _ in range(LINES)]
        for thread in threads:
            thread.start()
        assert self.enough.wait(60)
        self.server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join(20)


def kill_under_load(folder: Path, most: int, **environment: str) -> tuple[int, int]:
    """One server, load and SIGKILL: answered calls, and those without an event."""
    with running_server(folder, **environment) as server:
        load = Load(server, server.token("alice"), most)
        load.until_killed()
    rows = AuditEvent.objects.filter(action="tool.called", outcome="ok")
    written = set(rows.values_list("request_id", flat=True))
    return len(load.answered), len(set(load.answered) - written)


@pytest.mark.spec("every answered call is in the audit log after a kill")
def test_answered_calls_are_audited_after_sigkill(
    folder: Path, default_users: None
) -> None:
    """Answered calls minus audit rows is zero."""
    chance, answered, missing = random.Random(11), 0, 0
    for _ in range(KILLS):
        calls, lost = kill_under_load(folder, chance.randint(20, 300))
        answered, missing = answered + calls, missing + lost
    write_figure("kills", kills=KILLS, answered=answered, missing=missing)
    assert answered >= 20 * KILLS and missing == 0


def test_a_missing_audit_row_is_noticed(folder: Path, default_users: None) -> None:
    """The same count detects a server whose audit is off."""
    answered, missing = kill_under_load(folder, 20, AUDIT_DURABILITY="off")
    assert missing == answered >= 20
