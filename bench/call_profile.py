"""Where a call's time goes, for bare and for Portico (`bench.call_profile_process`)."""

from __future__ import annotations

import json
import os
import subprocess
from statistics import median
from typing import Any

from bench.call_profile_process import GROUPS, REST
from bench.processes import ROOT, Server
from bench.report_page import table
from bench.servers import Stage

CALLS = 1_000
TOLD = (
    "Microseconds of CPU for one `tools/call` inside one process, without the network, "
    "one call after the other; medians of the rounds. By package is the event loop's "
    "thread, split by the shares a profiler saw, a built-in function counted to who "
    "calls it. Other threads are the audit's."
)


def inside(server: Server) -> dict[str, Any]:
    """One measurement in a process of its own."""
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
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parts(stage: Stage, rounds: int) -> str:
    """Bare and Portico in its modes, in turn, as often as there are rounds."""
    servers = [stage.bare()]
    servers += [stage.portico("SQLite", mode) for mode in ("off", "batch", "durable")]
    if "PostgreSQL" in stage.vendors:
        servers.append(stage.portico("PostgreSQL", "batch"))
    found: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.name].append(inside(server))
    names = [*GROUPS, REST]
    head = ["server", "in all", "other threads", *names]
    rows = [[name, *cells(runs, names)] for name, runs in found.items()]
    return f"{TOLD}\n\n{table(head, rows)}"


def cells(runs: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Medians of one server."""
    whole = median(run["all"] for run in runs)
    others = median(run["all"] - run["loop"] for run in runs)
    split = [median(run["packages"].get(name, 0.0) for run in runs) for name in names]
    return [f"{value:.0f}" for value in (whole, others, *split)]
