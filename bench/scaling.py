"""`python -m bench.scaling`: what many processes ask of one PostgreSQL.

Measures 1, 2, 4 and 8 processes and idle streams on this machine, and computes what 100
hosts would ask. Writes docs/scaling.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

from bench import host_info
from bench.databases import Portico, Postgres, postgres
from bench.idle_streams import LIMITS, open_listening
from bench.processes import ROOT, TICKS, Server
from bench.report_page import table, write_section
from bench.scaling_process import KINDS
from bench.servers import serving

PAGE = ROOT / "docs" / "scaling.md"
PROCESSES = (1, 2, 4, 8)
SECONDS = 5.0
STREAMS = 1_000
HOSTS, PER_HOST = 100, 4
"""The simulated installation: hosts, and processes on each."""
LABELS = {
    "changes": "changes a second",
    "looks": "reads of the change log a second",
    "audit": "audit events a second, in batches of 100",
}


def processor_of_postgres() -> float:
    """Seconds of CPU that all processes of the server have used, ended ones too."""
    whole = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if head.partition("(")[2] == "postgres":
            whole += sum(map(int, rest.split()[11:15]))
    return whole / TICKS


def load(kind: str, processes: int, environment: dict[str, str]) -> tuple[float, float]:
    """(per second, microseconds of PostgreSQL's CPU for each) of all processes."""
    command = [sys.executable, "-m", "bench.scaling_process", kind, str(SECONDS)]
    env = {**os.environ, **environment}
    with ExitStack() as stack:
        running = []
        for number in range(processes):
            process = subprocess.Popen(
                [*command, str(number)],
                cwd=ROOT,
                env=env,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            running.append(stack.enter_context(process))
        for process in running:
            read_line(process)
        before = processor_of_postgres()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        count = sum(int(read_line(process)) for process in running)
        spent = processor_of_postgres() - before
    return count / SECONDS, spent / count * 1e6


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line of a process. Raises RuntimeError if it ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended")
    return line


def loads(environment: dict[str, str]) -> tuple[str, dict[str, tuple[float, float]]]:
    """The table of all loads, and the largest rate of each with its CPU."""
    head = ["", *(f"{n} process{'es' * (n > 1)}" for n in PROCESSES), "CPU us for one"]
    rows, best = [], {}
    for kind in KINDS:
        found = [load(kind, count, environment) for count in PROCESSES]
        best[kind] = max(found)
        cells = [f"{rate:,.0f}" for rate, _cpu in found]
        rows.append([LABELS[kind], *cells, f"{best[kind][1]:,.0f}"])
    return table(head, rows), best


def transactions(url: str) -> int:
    """Transactions that the database has committed so far."""
    query = "SELECT xact_commit FROM pg_stat_database WHERE datname=current_database()"
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def connections(url: str) -> int:
    """Connections that others have to this database."""
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def idle(portico: Portico) -> tuple[str, dict[str, float]]:
    """What one process with no load asks, without streams and with many."""
    options = {**portico.environment, **dict.fromkeys(LIMITS, str(STREAMS * 2))}
    app, python = "config.asgi:application", Path(sys.executable)
    server = Server("Portico", python, app, portico.folder, options, portico.tokens)
    figures: dict[str, float] = {}
    rows = []
    with serving(server), ExitStack() as stack:
        for streams in (0, STREAMS):
            memory = server.memory_mb()
            for _ in range(streams):
                stack.enter_context(open_listening(server))
            time.sleep(2)
            before, cpu = transactions(portico.url), server.cpu_seconds()
            time.sleep(10)
            rate = (transactions(portico.url) - before) / 10
            busy = (server.cpu_seconds() - cpu) / 10 * 100
            figures["rate"], figures["connections"] = rate, connections(portico.url)
            kib = (server.memory_mb() - memory) * 1024 / max(streams, 1)
            cells = [f"{streams:,}", f"{rate:.1f}", f"{figures['connections']:.0f}"]
            rows.append([*cells, f"{busy:.1f} %", f"{kib:.0f}" if streams else ""])
    head = ["idle streams", "transactions a second", "connections"]
    return table([*head, "CPU of the process", "KiB for a stream"], rows), figures


def simulated(best: dict[str, tuple[float, float]], idling: dict[str, float]) -> str:
    """What 100 hosts would ask of a database server as fast as this one."""
    processes = HOSTS * PER_HOST
    looks_most, looks_cpu = best["looks"]
    changes_most, audit_most = best["changes"][0], best["audit"][0]
    rows = [
        ["connections", f"{processes * idling['connections']:,.0f}", "100 by default"],
        [
            "reads of the change log a second without load, with idle streams",
            f"{processes * idling['rate']:,.0f}",
            f"{looks_most:,.0f} ({1e6 / looks_cpu:,.0f} a core of PostgreSQL)",
        ],
        ["changes a second", "by use", f"{changes_most:,.0f}"],
        ["audit events a second", "by use", f"{audit_most:,.0f}"],
    ]
    head = [f"{HOSTS} hosts with {PER_HOST} processes each", "asked", "possible here"]
    return table(head, rows)


def measure(database: Postgres, folder: Path) -> str:
    """All tables as Markdown."""
    portico = Portico(folder / "scaling", database.create_database("scaling"))
    portico.prepare(users=1000, tokens=1000, revoked=100, audit=0, callers=1, refresh=0)
    loaded, best = loads(portico.environment)
    idled, figures = idle(portico)
    source = f"Measured {host_info.stamp()} with `python -m bench.scaling`."
    return "\n\n".join((loaded, idled, simulated(best, figures), source))


def main() -> None:
    """Measure and write the page."""
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder) as database:
            if not database.url:
                sys.exit("This measurement needs PostgreSQL.")
            write_section("scaling", measure(database, folder), page=PAGE)


if __name__ == "__main__":
    main()
