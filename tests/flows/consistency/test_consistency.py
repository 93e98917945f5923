"""A committed change applies to every later message, on every worker.

`CONSISTENCY_FLIPS` makes the runs longer (see `python -m bench.consistency`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings

from accounts.tokens.issue import issue_tokens
from mcp_bridge.cache.triggers.install import dialect, install_triggers
from mcp_bridge.models import Primitive
from tests.support.access_mutations import (
    Change,
    by_admin,
    by_sql,
    by_update,
    other_process,
)
from tests.support.html_browser import Browser
from tests.support.raw_load import (
    SERVED,
    BackgroundLoad,
    RawConnection,
    Subject,
    request_of,
)
from tests.support.run_figures import write_figure
from tests.support.server import Portico, running_server
from tests.support.users import make_user

FLIPS = int(os.environ.get("CONSISTENCY_FLIPS", "32"))
ORIGIN = "http://127.0.0.1:1"
"""One issuer for servers on several ports: all of them accept its tokens."""
CROWD = 4


@pytest.fixture(scope="module")
def three(rows: None, folder: Path) -> Iterator[list[Portico]]:
    """Three servers of one process each, on one database."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_server(folder, ISSUER_URL=ORIGIN))
            for _ in range(3)
        ]


@pytest.fixture(scope="module")
def one_port(rows: None, folder: Path) -> Iterator[Portico]:
    """Three workers behind one port, as uvicorn runs them."""
    with running_server(folder, ISSUER_URL=ORIGIN, WORKERS="3") as running:
        yield running


@pytest.fixture
def crowd(default_users: None) -> Iterator[list[Subject]]:
    """Users with the role User, and a token each."""
    with override_settings(ISSUER_URL=ORIGIN, RESOURCE_URL=f"{ORIGIN}/mcp"):
        yield [subject(f"crowd-{number}") for number in range(CROWD)]
    Primitive.objects.filter(name="look").update(enabled=True)


def subject(name: str) -> Subject:
    user = make_user(name, "User")
    pair = issue_tokens(user, issued_via="password", refresh=False)
    return Subject(name, pair.access, pair.row.jti, user.pk)


class Trials:
    """A change, its commit, and at once a message on every connection."""

    def __init__(self, servers: list[Portico], lines: int = 2) -> None:
        self.lines = [RawConnection(server) for server in servers for _ in range(lines)]
        self.count = 0
        self.stale: list[str] = []
        self.chance = random.Random(7)

    def flip(self, change: Change, who: Subject, crowd: list[Subject]) -> None:
        """Remove access, send, give it back, send."""
        concerned = crowd if change.everybody else [who]
        for act, state in ((change.off, change.state), (change.on, SERVED)):
            for subject in concerned:
                subject.changing(state)
            act(who)
            for subject in concerned:
                subject.changed()
            self.look(change, who, state)

    def look(self, change: Change, who: Subject, state: str) -> None:
        """One message on every connection, all begun after the commit."""
        for line in self.lines:
            line.send(request_of(line.server, who.raw))
        for line in self.lines:
            given = line.answer()
            self.count += 1
            if given != state:
                self.stale.append(f"{change.name} of {who.name}: {given}, not {state}")

    def run(self, changes: list[Change], crowd: list[Subject], flips: int) -> None:
        """Run `flips` changes, alternating users and kinds of change."""
        for number in range(flips):
            change = changes[number % len(changes)]
            self.flip(change, self.chance.choice(crowd), crowd)

    def close(self) -> None:
        for line in self.lines:
            line.close()


@pytest.fixture
def trials(three: list[Portico]) -> Iterator[Trials]:
    made = Trials(three)
    yield made
    made.close()


@pytest.mark.spec("a committed change applies to every later message")
def test_no_message_is_decided_by_an_old_state(
    three: list[Portico], crowd: list[Subject], trials: Trials
) -> None:
    """Changes by update() and by SQL of another process, under load."""
    with BackgroundLoad(three, crowd) as hammer, other_process() as run:
        trials.run([*by_update(), *by_sql(run)], crowd, FLIPS)
    stale = trials.stale + hammer.stale
    told = {"flips": FLIPS * 2, "messages": trials.count, "in_passing": hammer.count}
    write_figure("consistency, three processes", **told, stale=len(stale))
    assert not stale
    assert trials.count == FLIPS * 2 * 6 and hammer.count > trials.count / 10


def test_changes_in_the_admin_apply_to_every_server(
    three: list[Portico], crowd: list[Subject], trials: Trials
) -> None:
    """Forms and actions of one server, seen by the other servers."""
    make_user("carol", "Admin", admin=True)
    with (
        Browser(three[0].url) as carol,
        BackgroundLoad(three, crowd, lines=1) as hammer,
    ):
        carol.sign_in("carol")
        trials.run(by_admin(carol), crowd, max(8, FLIPS // 10))
    assert not trials.stale + hammer.stale


def test_nor_behind_one_port(one_port: Portico, crowd: list[Subject]) -> None:
    trials = Trials([one_port], lines=9)
    with BackgroundLoad([one_port], crowd, lines=3) as hammer:
        trials.run(by_update(), crowd, FLIPS // 2)
    trials.close()
    stale = trials.stale + hammer.stale
    told = {"flips": FLIPS, "messages": trials.count, "in_passing": hammer.count}
    write_figure("consistency, three workers on one port", **told, stale=len(stale))
    assert not stale


@pytest.fixture(scope="module")
def faulty(rows: None, folder: Path) -> Iterator[tuple[Portico, Path]]:
    """A server with injected faults, and the file that activates one."""
    chosen = folder / "fault"
    chosen.write_text("")
    given = {
        "EXTRA_APPS": "tests.apps.shop,tests.apps.fault_injection",
        "FAULT_FILE": str(chosen),
    }
    with running_server(folder, ISSUER_URL=ORIGIN, **given) as running:
        yield running, chosen


@contextmanager
def triggers_dropped() -> Iterator[None]:
    with connection.cursor() as cursor:
        for statement in dialect().drop_statements(cursor):
            cursor.execute(statement)
    try:
        yield
    finally:
        install_triggers()


@pytest.mark.parametrize(
    ("fault", "harmless"),
    [
        ("slow", True),
        ("unverified", False),
        ("look", False),
        ("load", False),
        ("keyed", False),
    ],
)
def test_injected_faults_are_noticed(
    faulty: tuple[Portico, Path], crowd: list[Subject], fault: str, harmless: bool
) -> None:
    """A server that uses an old state makes these trials fail."""
    server, chosen = faulty
    trials, flips = Trials([server]), 0
    dropped = triggers_dropped() if fault == "unverified" else nullcontext()
    with BackgroundLoad([server], crowd) as hammer:
        trials.run(by_update(), crowd, 1)
        assert not trials.stale + hammer.stale
        chosen.write_text(fault)
        with dropped:
            most = 8 if harmless else 60
            while flips < most and not trials.stale + hammer.stale:
                trials.run(by_update(), crowd, 4)
                flips += 4
        chosen.write_text("")
    trials.close()
    assert bool(trials.stale + hammer.stale) is not harmless
