"""`python -m bench.sizing`: what one process does and needs; writes docs/sizing.md.

One worker, PostgreSQL (durable commits) and Valkey, all on this machine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import Any

from bench.host_info import stamp
from bench.installation import ROOT, Installation, resident, running_installation
from bench.report_page import table, write_section
from bench.wrk import MODERN, Load, message, run

PAGE = ROOT / "docs" / "sizing.md"
PEOPLE, CONNECTIONS, SECONDS = 50, 16, 20
EXPIRED, LIMIT_MB = 250_000, 512
EVENTS, BATCH, PERIOD = 200_000, 20_000, 9 * 86_400
"""Audit events to weigh, inserted like calls: in order of time, over nine days."""
NAME = "portico-sizing"
EVENT_TABLE = "accounts_auditevent"


class Connections(threading.Thread):
    """Counts the server's connections to PostgreSQL while a load runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over, self.most = threading.Event(), 0

    def run(self) -> None:
        from django.db import connection

        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        while not self.over.wait(0.05):
            with connection.cursor() as cursor:
                cursor.execute(query, [NAME])
                self.most = max(self.most, int(cursor.fetchone()[0]))
        connection.close()


def people(server: Installation) -> list[str]:
    """Create the callers; returns an access token of each."""
    from django.test import override_settings

    from accounts.tokens.issue import issue_tokens
    from tests.support.users import make_user

    users = [make_user(f"person{number}", "User") for number in range(PEOPLE)]
    with override_settings(ISSUER_URL=server.url, RESOURCE_URL=server.mcp_url):
        return [issue_tokens(u, issued_via="password").access for u in users]


def calls() -> Load:
    params = {"name": "look", "arguments": {}}
    return message("tools/call", MODERN, params, "looks at shelf")


def sign_ins() -> Load:
    from tests.support.users import PASSWORD

    bodies = tuple(
        json.dumps({"username": f"person{number}", "password": PASSWORD})
        for number in range(PEOPLE)
    )
    headers = {"Content-Type": "application/json"}
    return Load("/api/token/", headers, bodies, '"access"')


def rate(server: Installation, load: Load, tokens: list[str], connections: int) -> str:
    """Correct answers per second, with the median and the slow end."""
    files = load.write(server.folder / load.path.strip("/").replace("/", "-"), tokens)
    url = f"{server.url}{load.path}"
    run(url, files, load.expected, connections, 3)
    found = run(url, files, load.expected, connections, SECONDS)
    if found.wrong:
        raise RuntimeError(f"{found.wrong} wrong answers: {found.sample}")
    times = f"half within {found.p50_ms:.1f} ms, 99 % within {found.p99_ms:.1f} ms"
    return f"{found.rate:,.0f} ({times})"


def add_events() -> None:
    """Events of 200 people: 17 of 20 are calls, one a denial.

    Some thousand calls would not do: their indexes have no full pages yet.
    """
    from accounts.models import AuditEvent
    from bench.generated_rows import insert

    for first in range(0, EVENTS, BATCH):
        number = f"(i + {first})"
        insert(
            AuditEvent,
            BATCH,
            at=f"AGO(({EVENTS} - {number}) * {PERIOD} / {EVENTS})",
            action=f"CASE WHEN {number} % 20 < 17 THEN 'tool.called' "
            f"WHEN {number} % 20 = 17 THEN 'tool.denied' "
            f"WHEN {number} % 20 = 18 THEN 'message.allowed' "
            "ELSE 'token.refreshed' END",
            actor=f"'person' || ({number} * 7919 % 200)",
            actor_id=f"1 + {number} * 7919 % 200",
            client_id=f"CASE WHEN {number} % 5 = 0 THEN 'client-' || ({number} % 40) "
            "ELSE 'portico' END",
            token_id=f"HEX({number} * 7919 % 200)",
            address=f"'10.0.' || ({number} % 250) || '.7'",
            object=f"'tool greet_' || ({number} % 50)",
            decision=f"CASE {number} % 20 WHEN 17 THEN 'denied' WHEN 19 THEN '' "
            "ELSE 'allowed' END",
            reason=f"CASE {number} % 20 WHEN 17 THEN 'role_lacks_scope' "
            "WHEN 19 THEN '' ELSE 'granted' END",
            via=f"CASE WHEN {number} % 20 = 19 THEN '' "
            "ELSE 'role User grants User.Read' END",
            outcome=f"CASE WHEN {number} % 20 < 17 THEN 'ok' ELSE '' END",
            duration_ms=f"CASE WHEN {number} % 20 < 19 THEN {number} % 997 / 25.0 END",
            request_id=f"HEX({number})",
        )


def event_bytes() -> tuple[list[list[str]], str]:
    """Rows (part, bytes an event) of the audit; the sum."""
    from django.db import connection

    add_events()
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {EVENT_TABLE}")
        cursor.execute(f"SELECT count(*) FROM {EVENT_TABLE}")
        count = int(cursor.fetchone()[0])
        cursor.execute(
            "SELECT pg_table_size(%s), pg_total_relation_size(%s)", [EVENT_TABLE] * 2
        )
        heap, total = cursor.fetchone()
        cursor.execute(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) "
            "FROM pg_index WHERE indrelid = %s::regclass ORDER BY 2 DESC",
            [EVENT_TABLE],
        )
        sizes = [("the row", heap), *cursor.fetchall()]
    rows = [[name, f"{size / count:.1f}"] for name, size in sizes]
    return rows, f"{total / count:.0f} bytes, measured over {count:,} events"


def purge() -> str:
    """Memory and time of a purge of EXPIRED tokens, under a limit."""
    from accounts.models import IssuedToken
    from bench.generated_rows import insert, reset_ids

    insert(
        IssuedToken,
        EXPIRED,
        jti="HEX(i)",
        kind="'access'",
        issued_via="'password'",
        user="1",
        username="'person0'",
        client_id="'portico'",
        scope="'mcp'",
        family="UUID(i)",
        issued_at="AGO(i + 90000)",
        expires_at="AGO(i + 86400)",
    )
    reset_ids(IssuedToken)
    began = time.monotonic()
    with TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "purge"],
            cwd=ROOT,
            stdout=out,
            stderr=out,
            preexec_fn=limit_memory,
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        told = out.read()
    if status or f"{EXPIRED:,} tokens" not in told:
        raise RuntimeError(told)
    return f"{usage.ru_maxrss / 1024:.0f} MB and {time.monotonic() - began:.0f} s"


def limit_memory() -> None:
    limit = LIMIT_MB * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def counted(work: Callable[[], Any]) -> tuple[Any, int]:
    """The result, and the most connections of the server meanwhile."""
    counter = Connections()
    counter.start()
    try:
        return work(), counter.most
    finally:
        counter.over.set()
        counter.join()


def measure(server: Installation) -> str:
    url = server.environment["DATABASE_URL"]
    mark = f"{'&' if '?' in url else '?'}application_name={NAME}"
    server.start(DATABASE_URL=url + mark, HASHING_WAIT="20")
    tokens = people(server)
    called, busy = counted(lambda: rate(server, calls(), tokens, CONNECTIONS))
    rows, size = event_bytes()
    entered, more = counted(lambda: rate(server, sign_ins(), [], 4))
    memory = max(resident(pid) for pid in server.workers())
    server.stop()
    figures = [
        [
            f"calls a second, {CONNECTIONS} at a time, each with its committed event",
            called,
        ],
        ["sign-ins a second by password (one hash at a time)", entered],
        ["connections to PostgreSQL, most", str(max(busy, more))],
        ["resident memory", f"{memory:.0f} MB"],
        ["one audit event in PostgreSQL, with all indexes", size],
        [
            f"`manage.py purge` of {EXPIRED:,} tokens, limited to {LIMIT_MB} MiB",
            purge(),
        ],
    ]
    parts = table(["part of an audit event", "bytes"], rows)
    source = f"Measured {stamp()} with `python -m bench.sizing`."
    return f"{table(['one process', 'measured'], figures)}\n\n{parts}\n\n{source}"


def main() -> None:
    with running_installation(workers=1) as server:
        write_section("sizing", measure(server), page=PAGE)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
