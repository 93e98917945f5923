"""A committed change applies to every later message, on every worker.

`CONSISTENCY_FLIPS` makes the runs longer (see `python -m bench.consistency`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings

from accounts.models import Role, Scope
from accounts.tokens.issue import issue_tokens
from mcp_bridge.cache.triggers.install import dialect, install_triggers
from mcp_bridge.models import ArgumentRule, Primitive
from tests.support.access_mutations import (
    HIGH,
    Change,
    UpstreamTool,
    by_admin,
    by_sql,
    by_update,
    other_process,
)
from tests.support.html_browser import Browser
from tests.support.mcp_client import LEGACY, McpClient
from tests.support.raw_load import (
    SERVED,
    BackgroundLoad,
    RawConnection,
    Subject,
    request_of,
)
from tests.support.run_figures import write_figure
from tests.support.server import Portico, running_server
from tests.support.upstream_servers import accepted, running_upstream, upstream_row
from tests.support.users import make_user

FLIPS = int(os.environ.get("CONSISTENCY_FLIPS", "10"))
ORIGIN = "http://127.0.0.1:1"
"""One issuer for servers on several ports: all of them accept its tokens."""
CROWD = 4


@pytest.fixture(scope="module")
def three_servers(rows: None, folder: Path) -> Iterator[list[Portico]]:
    """Three servers of one process each, on one database."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_server(folder, ISSUER_URL=ORIGIN))
            for _ in range(3)
        ]


@pytest.fixture(scope="module")
def shared_port(rows: None, folder: Path) -> Iterator[Portico]:
    """Three workers behind one port, as uvicorn runs them."""
    with running_server(folder, ISSUER_URL=ORIGIN, WORKERS="3") as running:
        yield running


@pytest.fixture
def subjects(default_users: None) -> Iterator[list[Subject]]:
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

    def flip(self, change: Change, who: Subject, subjects: list[Subject]) -> None:
        """Remove access, send, give it back, send."""
        concerned = subjects if change.everybody else [who]
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
            line.send(who.request(line.server))
        for line in self.lines:
            result = line.answer()
            self.count += 1
            if result != state:
                self.stale.append(f"{change.name} of {who.name}: {result}, not {state}")

    def run(self, changes: list[Change], subjects: list[Subject], flips: int) -> None:
        """Run `flips` changes, alternating users and kinds of change."""
        for number in range(flips):
            change = changes[number % len(changes)]
            self.flip(change, self.chance.choice(subjects), subjects)

    def close(self) -> None:
        for line in self.lines:
            line.close()


@pytest.fixture
def trials(three_servers: list[Portico]) -> Iterator[Trials]:
    runner = Trials(three_servers)
    yield runner
    runner.close()


@pytest.mark.spec("a committed change applies to every later message")
def test_no_message_is_decided_by_an_old_state(
    three_servers: list[Portico], subjects: list[Subject], trials: Trials
) -> None:
    """Changes by update() and by SQL of another process, under load."""
    with BackgroundLoad(three_servers, subjects) as load, other_process() as run:
        trials.run([*by_update(), *by_sql(run)], subjects, FLIPS)
    stale = trials.stale + load.stale
    figures = {"flips": FLIPS * 2, "messages": trials.count, "in_passing": load.count}
    write_figure("consistency, three processes", **figures, stale=len(stale))
    assert not stale
    assert trials.count == FLIPS * 2 * 6 and load.count > trials.count / 10


def test_no_message_of_a_session_is_decided_by_an_old_state(
    three_servers: list[Portico], subjects: list[Subject], trials: Trials
) -> None:
    """One process opened each session, and all three serve it."""
    for number, who in enumerate(subjects):
        client = McpClient(three_servers[number % 3], who.raw, LEGACY).open()
        who.session = client.session
    with BackgroundLoad(three_servers, subjects) as load:
        trials.run(by_update(), subjects, FLIPS)
    stale = trials.stale + load.stale
    figures = {"flips": FLIPS * 2, "messages": trials.count, "in_passing": load.count}
    write_figure("sessions on three processes", **figures, stale=len(stale))
    assert not stale


def test_changes_in_the_admin_apply_to_every_server(
    three_servers: list[Portico], subjects: list[Subject], trials: Trials
) -> None:
    """Forms and actions of one server, seen by the other servers."""
    make_user("carol", "Admin", admin=True)
    with (
        Browser(three_servers[0].url) as carol,
        BackgroundLoad(three_servers, subjects, lines=1) as load,
    ):
        carol.sign_in("carol")
        trials.run(by_admin(carol), subjects, max(4, FLIPS // 10))
    assert not trials.stale + load.stale


def test_no_worker_behind_one_port_uses_an_old_state(
    shared_port: Portico, subjects: list[Subject]
) -> None:
    trials = Trials([shared_port], lines=9)
    with BackgroundLoad([shared_port], subjects, lines=3) as load:
        trials.run(by_update(), subjects, FLIPS // 2)
    trials.close()
    stale = trials.stale + load.stale
    figures = {"flips": FLIPS, "messages": trials.count, "in_passing": load.count}
    write_figure("consistency, three workers on one port", **figures, stale=len(stale))
    assert not stale


@pytest.fixture
def far_tool(subjects: list[Subject]) -> Iterator[UpstreamTool]:
    """The tool `acme__wait` of an upstream server, which every subject calls."""
    with running_upstream(json_response=True, stateless_http=True) as running:
        server = upstream_row(running.url, protocol="2026-07-28", max_concurrency=200)
        tool = accepted(server, "tool", "wait")
        limit = {"pointer": "/seconds", "operator": "at_most", "value": HIGH}
        rule = ArgumentRule.objects.create(primitive=tool, **limit)
        for subject in subjects:
            subject.tool, subject.arguments = tool.name, {"seconds": 0}
        tool.required_scopes.set([Scope.objects.get(name=tool.own_scope)])
        user = Role.objects.get(name="User")
        user.scopes.add(*tool.required_scopes.all())
        yield UpstreamTool(server, tool, rule)
        server.delete()


def slowest_end(
    changes: list[Change], subjects: list[Subject], server: Portico
) -> float:
    """Seconds from a change to the end of a call that is in progress, at most."""
    ends = []
    for change, who in zip(changes, subjects, strict=True):
        line = RawConnection(server)
        line.send(request_of(server, who.raw, who.tool, seconds=20))
        time.sleep(0.5)
        change.off(who)
        started = time.monotonic()
        assert line.answer() == change.state, change.name
        ends.append(time.monotonic() - started)
        change.on(who)
        line.close()
    return max(ends)


@pytest.mark.spec("a committed change applies to calls of upstream servers")
def test_no_call_of_an_upstream_server_is_decided_by_an_old_state(
    three_servers: list[Portico],
    subjects: list[Subject],
    far_tool: UpstreamTool,
    trials: Trials,
) -> None:
    """The server, a token, a cell of the matrix and an argument rule change."""
    make_user("carol", "Admin", admin=True)
    flips, pages = FLIPS, max(4, FLIPS // 20)
    with (
        Browser(three_servers[0].url) as carol,
        BackgroundLoad(three_servers, subjects, lines=1) as load,
    ):
        carol.sign_in("carol")
        trials.run(far_tool.by_update(), subjects, flips)
        trials.run(far_tool.by_admin(carol), subjects, pages)
    ended = slowest_end(far_tool.by_update(), subjects, three_servers[1])
    stale = trials.stale + load.stale
    changes = (flips + pages) * 2
    figures = {"flips": changes, "messages": trials.count, "in_passing": load.count}
    ends = {"ended": round(ended, 2)}
    write_figure("calls of an upstream server", **figures, stale=len(stale), **ends)
    assert not stale
    assert ended < 3  # half a second, and what a busy machine adds


@pytest.fixture(scope="module")
def faulty_server(rows: None, folder: Path) -> Iterator[tuple[Portico, Path]]:
    """A server with injected faults, and the file that activates one."""
    chosen = folder / "fault"
    chosen.write_text("")
    settings = {
        "EXTRA_APPS": "tests.apps.shop,tests.apps.fault_injection",
        "FAULT_FILE": str(chosen),
    }
    with running_server(folder, ISSUER_URL=ORIGIN, **settings) as running:
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
        pytest.param("slow", True, marks=pytest.mark.once),
        ("unverified", False),
        ("look", False),
        pytest.param("load", False, marks=pytest.mark.once),
        pytest.param("keyed", False, marks=pytest.mark.once),
    ],
)
def test_injected_faults_are_noticed(
    faulty_server: tuple[Portico, Path],
    subjects: list[Subject],
    fault: str,
    harmless: bool,
) -> None:
    """A server that uses an old state makes these trials fail."""
    server, chosen = faulty_server
    trials, flips = Trials([server]), 0
    dropped = triggers_dropped() if fault == "unverified" else nullcontext()
    with BackgroundLoad([server], subjects) as load:
        trials.run(by_update(), subjects, 1)
        assert not trials.stale + load.stale
        chosen.write_text(fault)
        with dropped:
            most = 8 if harmless else 60
            while flips < most and not trials.stale + load.stale:
                trials.run(by_update(), subjects, 4)
                flips += 4
        chosen.write_text("")
    trials.close()
    assert bool(trials.stale + load.stale) is not harmless
