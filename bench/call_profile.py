"""CPU time of a call by package, for the bare server and for Portico."""

from __future__ import annotations

import json
import os
import subprocess
from statistics import median
from typing import Any

from bench.call_profile_process import GROUPS, REST
from bench.processes import ROOT, Server
from bench.report_page import table
from bench.servers import BenchServers

CALLS = 1_000
EXPLANATION = (
    "Microseconds of CPU for one `tools/call` inside one process, without the network, "
    "one call after the other; medians of the rounds. By package is the event loop's "
    "thread, split by the shares of a profiler. A built-in function counts for its "
    "caller. Other threads belong to the audit."
)


def inside(server: Server) -> dict[str, Any]:
    """Run `bench.call_profile_process` once; returns its JSON."""
    server.folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "WORKERS": "1", **server.environment}
    env["BENCH_FOLDER"] = str(server.folder)
    command = [
        str(server.python),
        "-m",
        "bench.call_profile_process",
        server.app,
        str(CALLS),
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{server.name} failed inside:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def parts(pool: BenchServers, rounds: int) -> str:
    """Measure the bare server and Portico in its modes alternately."""
    servers = [pool.bare()]
    servers += [pool.portico("SQLite", mode) for mode in ("off", "batch", "durable")]
    if "PostgreSQL" in pool.vendors:
        servers.append(pool.portico("PostgreSQL", "batch"))
    measurements: dict[str, list[dict[str, Any]]] = {
        server.name: [] for server in servers
    }
    for _ in range(rounds):
        for server in servers:
            measurements[server.name].append(inside(server))
    names = [*GROUPS, REST]
    head = ["server", "in all", "other threads", *names]
    rows = [[name, *cells(runs, names)] for name, runs in measurements.items()]
    return f"{EXPLANATION}\n\n{table(head, rows)}"


def cells(runs: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Medians of one server as table cells."""
    whole = median(run["all"] for run in runs)
    others = median(run["all"] - run["loop"] for run in runs)
    split = [median(run["packages"].get(name, 0.0) for run in runs) for name in names]
    return [f"{value:.0f}" for value in (whole, others, *split)]
