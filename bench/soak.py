"""`python -m bench.soak [--minutes 30]`: a team's traffic for a long time.

First measures the capacity of two workers. Then mixes logins, refreshes, calls,
revocations and admin edits at 70 % of it. Writes a section of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.installation import ROOT, Installation, resident, running_installation
from bench.report_page import write_section

PEOPLE, CLIENTS = 20, 16
SHARE = 0.7
MIX = {"call": 90, "tools": 4, "refresh": 3, "login": 1, "revoke": 1, "edit": 1}
"""Operation -> percentage."""


@dataclass
class Tally:
    """Counts, durations and wrong answers."""

    done: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    wrong: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, operation: str, wanted: int, answer: Any, took: float) -> None:
        with self.lock:
            self.done[operation] += 1
            self.messages += answer.url.path == "/mcp"
            self.took.append(took)
            if answer.status_code != wanted:
                text = f"{operation} {answer.status_code} {answer.text[:120]}"
                self.wrong.append(text)

    def broken(self, operation: str, error: Exception) -> None:
        """Count a lost connection as a wrong answer."""
        with self.lock:
            self.wrong.append(f"{operation} {error!r}")


class Client:
    """One person's client; it never repeats a failed request."""

    def __init__(
        self, server: Installation, name: str, tally: Tally, seed: int
    ) -> None:
        import httpx2

        from tests.support.mcp_client import McpClient

        self.name, self.tally, self.server = name, tally, server
        self.random = random.Random(seed)
        self.wire = McpClient(server, "", http=httpx2.Client(timeout=30))  # type: ignore[arg-type]
        self.refresh = ""
        self.login()

    def asked(self, operation: str, wanted: int, send: Any, *arguments: Any) -> Any:
        """Send one request and count its answer; a lost connection is wrong, too."""
        import httpx2

        began = time.perf_counter()
        try:
            answer = send(*arguments)
        except httpx2.TransportError as error:
            self.tally.broken(operation, error)
            return None
        self.tally.note(operation, wanted, answer, time.perf_counter() - began)
        return answer

    def post(self, operation: str, path: str, body: dict[str, str]) -> None:
        """Send a token request and use the pair in its answer."""

        def send() -> Any:
            return self.wire.http.post(f"{self.server.url}{path}", json=body)

        answer = self.asked(operation, 200, send)
        if answer is not None and answer.status_code == 200:
            pair = answer.json()
            self.wire.token, self.refresh = pair["access"], pair["refresh"]

    def login(self) -> None:
        from tests.support.users import PASSWORD

        body = {"username": self.name, "password": PASSWORD}
        self.post("login", "/api/token/", body)

    def step(self) -> None:
        """Do one random operation of the mix."""
        kind = self.random.choices(list(MIX), list(MIX.values()))[0]
        getattr(self, f"do_{kind}")()

    def do_call(self) -> None:
        self.asked("call", 200, self.wire.call, "look")

    def do_tools(self) -> None:
        self.asked("list", 200, self.wire.post, "tools/list")

    def do_refresh(self) -> None:
        self.post("refresh", "/api/token/refresh/", {"refresh": self.refresh})

    def do_login(self) -> None:
        self.login()

    def do_revoke(self) -> None:
        """Revoke as an admin, expect 401 for the next message, and sign in again."""
        from django.db import connections

        from accounts.models import IssuedToken

        mine = IssuedToken.objects.filter(username=self.name)
        newest = mine.order_by("-pk").first()
        if newest is not None:
            family = IssuedToken.objects.filter(family=newest.family)
            family.revoke(actor="soak", reason="soak")
            connections.close_all()
            self.asked("refused", 401, self.wire.call, "look")
        self.login()

    def do_edit(self) -> None:
        """Grant a role to a bystander and remove it."""
        from django.db import connections

        from accounts.models import Role, RoleAssignment, User

        bystander = User.objects.get(username=self.name.replace("soak", "bystander"))
        guest = Role.objects.get(name="Guest")
        RoleAssignment.objects.grant(bystander, guest, reason="soak")
        RoleAssignment.objects.filter(user=bystander).delete()
        connections.close_all()
        with self.tally.lock:
            self.tally.done["edit"] += 1


def capacity(clients: list[Client], seconds: float) -> float:
    """Operations per second of the mix without pauses."""
    end = time.monotonic() + seconds

    def run_without_pause(client: Client) -> int:
        count = 0
        while time.monotonic() < end:
            client.step()
            count += 1
        return count

    with ThreadPoolExecutor(len(clients)) as pool:
        return sum(pool.map(run_without_pause, clients)) / seconds


def steady(clients: list[Client], rate: float, seconds: float) -> None:
    """Operations at a fixed rate, evenly spread over the clients."""
    gap, start = len(clients) / rate, time.monotonic()

    def pace(index: int) -> None:
        due = start + gap * index / len(clients)
        while due < start + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            clients[index].step()
            due += gap

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(pace, range(len(clients))))


class Memory(threading.Thread):
    """Measures the workers' memory every five seconds."""

    def __init__(self, server: Installation) -> None:
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        start = time.monotonic()
        while not self.over.wait(5):
            total = sum(resident(pid) for pid in self.server.workers())
            self.samples.append((time.monotonic() - start, total))

    def slope(self) -> float:
        """MB an hour by least squares over the second half."""
        late = self.samples[len(self.samples) // 2 :]
        if len(late) < 2:
            return 0.0
        x = sum(at for at, _ in late) / len(late)
        y = sum(mb for _, mb in late) / len(late)
        spread = sum((at - x) ** 2 for at, _ in late)
        return 3600 * sum((at - x) * (mb - y) for at, mb in late) / spread


def people() -> None:
    """Create the callers, and the bystanders whose roles change."""
    from tests.support.users import make_user

    for number in range(PEOPLE):
        make_user(f"soak{number}", "User")
        make_user(f"bystander{number}")


def message_events() -> int:
    """Number of message events in the audit."""
    from django.db.models import Q

    from accounts.models import AuditEvent

    at_mcp = Q(action__startswith="tool.") | Q(action__startswith="message.")
    return int(AuditEvent.objects.filter(at_mcp | Q(action="request.refused")).count())


def report(minutes: float, most: float, tally: Tally, memory: Memory, rows: int) -> str:
    took = sorted(tally.took)
    mix = ", ".join(f"{count:,} {name}" for name, count in sorted(tally.done.items()))
    first, last = memory.samples[len(memory.samples) // 2][1], memory.samples[-1][1]
    same = "equal" if rows == tally.messages else "NOT EQUAL"
    wrong = "none" if not tally.wrong else "; ".join(tally.wrong[:5])
    times = ", ".join(pick(took, share) for share in (0.5, 0.95, 0.99, 1))
    lines = {
        "capacity of the mix": f"{most:,.0f} operations a second",
        "load": f"{SHARE:.0%} of it, {len(took) / minutes / 60:,.0f} answers a second",
        "done": mix,
        "wrong answers": f"{len(tally.wrong)} ({wrong})",
        "p50, p95, p99, slowest": f"{times} ms",
        "messages answered at /mcp": f"{tally.messages:,}",
        "audit rows of them": f"{rows:,}: {same}",
        "memory of both workers, half-time and end": f"{first:.0f} and {last:.0f} MB, "
        f"slope {memory.slope():+.1f} MB an hour",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return (
        f"`python -m bench.soak --minutes {minutes:g}`, {datetime.now(UTC):%Y-%m-%d}: "
        f"two workers, PostgreSQL, Valkey and {CLIENTS} clients, all on one "
        f"{platform.machine()} machine with {os.cpu_count()} cores.\n\n"
        f"| | |\n| --- | --- |\n{table}\n"
    )


def pick(ordered: list[float], share: float) -> str:
    """A quantile in milliseconds."""
    index = min(len(ordered) - 1, int(share * len(ordered)))
    return f"{1000 * ordered[index]:.1f}"


def main() -> int:
    """Measure, load, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    with running_installation(workers=2) as server:
        people()
        server.start()
        warm = Tally()
        clients = [
            Client(server, f"soak{n % PEOPLE}", warm, seed=n) for n in range(CLIENTS)
        ]
        capacity(clients, 5)
        most = capacity(clients, 20)
        before, tally, memory = message_events(), Tally(), Memory(server)
        for client in clients:
            client.tally = tally
        memory.start()
        steady(clients, SHARE * most, 60 * minutes)
        memory.over.set()
        rows = message_events() - before
        text = report(minutes, most, tally, memory, rows)
    print(text)
    write_section("soak", text, page=ROOT / "docs" / "reliability.md")
    return len(tally.wrong) + (rows != tally.messages)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
