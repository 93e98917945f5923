"""`make bench`: measure the named tables and write them to docs/benchmarks.md."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import call_profile, host_info, tables
from bench.databases import postgres
from bench.idle_streams import idle_streams
from bench.report_page import write_section
from bench.servers import PEERS, BenchServers
from bench.upstream import upstream
from bench.wrk import wrk_path

Table = Callable[[BenchServers, int], str]
TABLES: dict[str, tuple[str, Table]] = {
    "calls": ("Calls: ratio to no authorization", tables.calls),
    "eras": ("The older protocol", tables.eras),
    "tools": ("Ten thousand tools", tables.tools),
    "revoked": ("A million revoked tokens", tables.revoked),
    "tokens": ("Ten thousand tokens in use", tables.tokens),
    "workers": ("Two workers", tables.workers),
    "memory": ("Memory", tables.memory),
    "streams": ("Idle streams", idle_streams),
    "parts": ("Where the time of a call goes", call_profile.parts),
    "metrics": ("What metrics cost", tables.metrics),
    "upstream": ("Upstream servers", upstream),
    "issuing": ("Issuing and refreshing tokens", tables.issuing),
}
QUICK = ("calls", "memory")


def rounds() -> int:
    """Number of rounds of each table, without the discarded one."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    return int(os.environ.get("BENCH_ROUNDS") or (2 if quick else 5))


def chosen(names: list[str]) -> list[str]:
    """The tables to measure; exits and lists all tables if a name is unknown."""
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        sys.exit(f"No table {', '.join(unknown)}; there are: {', '.join(TABLES)}.")
    quick = os.environ.get("BENCH_QUICK") == "1"
    return names or list(QUICK if quick else TABLES)


def main() -> None:
    """Measure each table, and write it at once."""
    names = chosen(sys.argv[1:])
    wrk_path()
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder) as database:
            servers = BenchServers(folder, database)
            machine = "\n".join(host_info.lines(database, PEERS))
            write_section("machine", machine, "The machine")
            for table in names:
                run(table, servers)


def run(name: str, servers: BenchServers) -> None:
    """Measure one table and write its section."""
    title, table = TABLES[name]
    print(f"{title} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    text = table(servers, rounds())
    source = f"Measured {host_info.stamp()}; {rounds()} rounds kept."
    write_section(name, f"{text}\n\n{source}", title)
    print(f"{title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
