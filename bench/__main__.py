"""`make bench`: run the tables asked for and write them into docs/benchmarks.md."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import call_profile, host_info, tables
from bench.databases import postgres
from bench.report_page import put
from bench.servers import PEERS, Stage
from bench.wrk import needed

Table = Callable[[Stage, int], str]
TABLES: dict[str, tuple[str, Table]] = {
    "calls": ("Calls: ratio to no authorization", tables.calls),
    "eras": ("The older protocol", tables.eras),
    "tools": ("Ten thousand tools", tables.tools),
    "revoked": ("A million revoked tokens", tables.revoked),
    "tokens": ("Ten thousand tokens in use", tables.tokens),
    "workers": ("Two workers", tables.workers),
    "memory": ("Memory", tables.memory),
    "parts": ("Where the time of a call goes", call_profile.parts),
    "metrics": ("What metrics cost", tables.metrics),
    "issuing": ("Issuing and refreshing tokens", tables.issuing),
}
QUICK = ("calls", "memory")


def rounds() -> int:
    """Kept rounds of each table."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    return int(os.environ.get("BENCH_ROUNDS") or (2 if quick else 5))


def chosen(names: list[str]) -> list[str]:
    """The tables to run; says which there are when one is unknown."""
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        sys.exit(f"No table {', '.join(unknown)}; there are: {', '.join(TABLES)}.")
    quick = os.environ.get("BENCH_QUICK") == "1"
    return names or list(QUICK if quick else TABLES)


def main() -> None:
    """Prepare, run, write; each table as soon as it is there."""
    names = chosen(sys.argv[1:])
    needed()
    with tempfile.TemporaryDirectory(prefix="portico-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder) as database:
            stage = Stage(folder, database)
            put("machine", "The machine", "\n".join(host_info.lines(database, PEERS)))
            for table in names:
                run(table, stage)


def run(name: str, stage: Stage) -> None:
    """One table, with when it was measured and for how long."""
    title, table = TABLES[name]
    print(f"{title} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    text = table(stage, rounds())
    told = f"Measured {host_info.stamp()}; {rounds()} rounds kept."
    put(name, title, f"{text}\n\n{told}")
    print(f"{title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
