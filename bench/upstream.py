"""What Portico adds to a call of an upstream server, beside another proxy.

Every contender serves the same tool: the bare server directly, or through a proxy. Each
call has other arguments.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from statistics import median

from bench import targets
from bench.interleaved import Contender, Results, compare
from bench.processes import ROOT, Server
from bench.report_page import table
from bench.servers import PEERS, PORTICO, BenchServers, serving
from bench.wrk import MODERN, Load, message
from tests.support.ports import free_port

CONNECTIONS = (1, 16, 64)
GOALS = {"cpu_ms": 0.5, "p50_ms": 1.0, "p99_ms": 5.0, "rate": 1000.0, "times": 3.0}
SCRIPT = """
from accounts.models import Scope
from mcp_bridge.models import Primitive, UpstreamServer
from mcp_bridge.upstreams.discovery import discover
server, _ = UpstreamServer.objects.update_or_create(
    name="bench",
    defaults={
        "url": URL, "prefix": "bench", "max_concurrency": 200,
        "new_definitions": "accept",
    },
)
discover(server)
row = Primitive.objects.get(name="bench__greet")
row.required_scopes.add(Scope.objects.get(name="User.Read"))
"""
"""Makes the bare server's tool an accepted upstream tool."""


def load(tool: str) -> Load:
    """`tools/call` with 1,024 different arguments."""
    one = message("tools/call", MODERN, {"name": tool, "arguments": {}}, "hello bench")
    body = json.loads(one.bodies[0])
    bodies = []
    for number in range(1024):
        arguments = {"name": f"bench {number}"}
        params = {**body["params"], "arguments": arguments}
        bodies.append(json.dumps({**body, "id": number + 1, "params": params}))
    return replace(one, bodies=tuple(bodies))


def add_upstream(portico: Server, bare: Server) -> None:
    """Discover the bare server, which runs, and accept its tool."""
    env = {**os.environ, **portico.environment, "DATA_DIR": str(portico.folder)}
    script = f"URL = {f'{bare.url}/mcp'!r}\n{SCRIPT}"
    command = [str(PORTICO), "manage.py", "shell", "-v0", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The upstream rows could not be written:\n{done.stderr}")


def upstream(pool: BenchServers, rounds: int) -> str:
    """Direct calls, Portico with two databases and two kinds of audit, FastMCP."""
    bare = pool.bare()
    bare.port = free_port()
    ours = [
        pool.portico(vendor, audit)
        for vendor in pool.vendors
        for audit in ("batch", "durable")
    ]
    address = {"BENCH_UPSTREAM": f"{bare.url}/mcp"}
    app, folder = "bench.peers.fast_proxy:app", pool.folder / "fast_proxy"
    proxy = Server("FastMCP's proxy, no authorization", PEERS, app, folder, address)
    with serving(bare):
        for server in ours:
            add_upstream(server, bare)
        with serving(*ours, proxy):
            return measured(bare, ours, proxy, rounds)


def measured(bare: Server, ours: list[Server], proxy: Server, rounds: int) -> str:
    """The table of these servers, which run."""
    base = Contender("direct", bare, load("greet"))
    others = [Contender(server.name, server, load("bench__greet")) for server in ours]
    others.append(Contender(proxy.name, proxy, load("greet")))
    results = compare(base, others, CONNECTIONS, rounds)
    return f"{added(results, base, others)}\n\n{targets.wrong(results)}"


def added(results: Results, base: Contender, others: list[Contender]) -> str:
    """Rates, times and CPU of each, and what it adds to a direct call."""
    head = ["server", "connections", "calls/s", "p50 ms (added)", "p99 ms (added)"]
    head += ["its CPU ms a call", "times FastMCP's proxy"]
    rows = []
    for c in CONNECTIONS:
        direct, last = results[base.label, c], results[others[-1].label, c]
        for who in (base, *others):
            found = results[who.label, c]
            p50 = median(s.p50_ms for s in found.slices)
            p50_direct = median(s.p50_ms for s in direct.slices)
            more = f"{p50:.1f} ({p50 - p50_direct:+.1f})"
            p99 = f"{found.p99:.1f} ({found.p99 - direct.p99:+.1f})"
            times = median(found.over(last)) if found.over(last) else 0.0
            rows.append(
                [
                    who.label,
                    str(c),
                    f"{found.rate:,.0f}",
                    more,
                    p99,
                    f"{found.cpu / 1000:.2f}",
                    f"{times:.1f}",
                ]
            )
    return table(head, rows)
