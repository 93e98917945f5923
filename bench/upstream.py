"""What Portico adds to a call of an upstream server, beside another proxy.

Every contender serves the same tool: the bare server directly, or through a proxy. Each
call has other arguments. The bare server has 500 tools, as many as a team may connect.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from statistics import median

from bench import targets
from bench.interleaved import Contender, Figures, Results, compare
from bench.processes import ROOT, Server
from bench.report_page import table
from bench.servers import LISTED, PEERS, PORTICO, BenchServers, serving
from bench.tables import ratios
from bench.wrk import MODERN, Load, listing, message
from tests.support.ports import free_port

CONNECTIONS = (1, 16, 64)
JUDGED = 16
"""The number of connections that the goals are about."""
CPU_MS, P50_MS, P99_MS, RATE, TIMES = 0.5, 1.0, 5.0, 1000.0, 3.0
"""The goals: added at most, calls per second at least, FastMCP's rate times."""
PACED_SECONDS = 3
SCRIPT = """
from accounts.models import Scope
from mcp_bridge.models import Primitive, UpstreamServer
from mcp_bridge.upstreams.discovery import discover
if URL:
    server, _ = UpstreamServer.objects.update_or_create(
        name="bench",
        defaults={
            "url": URL, "prefix": "bench", "max_concurrency": 200,
            "new_definitions": "accept",
        },
    )
    discover(server)
reading = Scope.objects.get(name="User.Read")
for row in Primitive.objects.filter(kind="tool", name__contains="greet"):
    row.required_scopes.add(reading)
"""
"""Accepts the tools of the bare server, if one is named, and gives all to the role."""
EXPLANATION = (
    "Without a pause, calls queue: the time of a call grows with the number of "
    "connections and with the cost of a call. So the time that Portico adds is "
    "measured with connections that pause 50 to 150 ms before each call."
)


def load(tool: str, *, paced: bool = False) -> Load:
    """`tools/call` with 1,024 different arguments."""
    one = message("tools/call", MODERN, {"name": tool, "arguments": {}}, "hello bench")
    body = json.loads(one.bodies[0])
    bodies = []
    for number in range(1024):
        arguments = {"name": f"bench {number}"}
        params = {**body["params"], "arguments": arguments}
        bodies.append(json.dumps({**body, "id": number + 1, "params": params}))
    return replace(one, bodies=tuple(bodies), paced=paced)


def offer_all(portico: Server, url: str = "") -> None:
    """Discover the bare server at `url`, which runs; give every tool to the caller."""
    env = {**os.environ, **portico.environment, "DATA_DIR": str(portico.folder)}
    script = f"URL = {url!r}\n{SCRIPT}"
    command = [str(PORTICO), "manage.py", "shell", "-v0", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The rows could not be written:\n{done.stderr}")


def upstream(pool: BenchServers, rounds: int) -> str:
    """Direct calls, Portico with two databases and two kinds of audit, FastMCP."""
    bare = pool.bare(BENCH_TOOLS=str(LISTED))
    bare.port = free_port()
    ours = [
        pool.portico(vendor, audit, "upstream")
        for vendor in pool.vendors
        for audit in ("batch", "durable")
    ]
    local = [
        pool.portico(vendor, "batch", "local", BENCH_TOOLS=str(LISTED))
        for vendor in pool.vendors
    ]
    address = {"BENCH_UPSTREAM": f"{bare.url}/mcp"}
    app, folder = "bench.peers.fast_proxy:app", pool.folder / "fast_proxy"
    proxy = Server("FastMCP's proxy, no authorization", PEERS, app, folder, address)
    with serving(bare):
        for server in ours:
            offer_all(server, f"{bare.url}/mcp")
        for server in local:
            offer_all(server)
        with serving(*ours, *local, proxy):
            lists = listed(bare, ours, local, rounds)
            return f"{measured(bare, ours, proxy, rounds)}\n\n{lists}"


def measured(bare: Server, ours: list[Server], proxy: Server, rounds: int) -> str:
    """The tables of the calls of these servers, which run."""
    base = Contender("direct", bare, load("greet"))
    others = [Contender(server.name, server, load("bench__greet")) for server in ours]
    others.append(Contender(proxy.name, proxy, load("greet")))
    results = compare(base, others, CONNECTIONS, rounds)
    rates = f"{throughput(results, base, others)}\n\n{targets.wrong(results)}"
    quiet = [replace(who, load=replace(who.load, paced=True)) for who in others]
    calm = replace(base, load=replace(base.load, paced=True))
    paced = compare(calm, quiet, (1, JUDGED), rounds, PACED_SECONDS)
    added = f"{times(paced, calm, quiet)}\n\n{targets.wrong(paced)}"
    return f"{rates}\n\n{EXPLANATION}\n\n{added}"


def judged(text: str, met: bool, who: Contender, connections: int, goal: float) -> str:
    """The text, with the verdict if the goal is about this row."""
    if connections != JUDGED or not who.label.startswith("Portico"):
        return text
    return f"{text} {'meets' if met else '**misses**'} {goal:g}"


def throughput(results: Results, base: Contender, others: list[Contender]) -> str:
    """Rates and CPU of each; a direct call has no CPU of a proxy."""
    head = ["server", "connections", "calls/s", "its CPU ms a call"]
    head += ["times FastMCP's proxy"]
    rows = []
    for c in CONNECTIONS:
        first, last = results[base.label, c], results[others[-1].label, c]
        for who in (base, *others):
            found = results[who.label, c]
            cpu, more = found.cpu / 1000, over(found, first, last)
            rows.append(
                [
                    who.label,
                    str(c),
                    judged(f"{found.rate:,.0f}", found.rate >= RATE, who, c, RATE),
                    judged(f"{cpu:.2f}", cpu <= CPU_MS, who, c, CPU_MS),
                    judged(
                        f"{more:.1f}" if more else "-", more >= TIMES, who, c, TIMES
                    ),
                ]
            )
    return table(head, rows)


def over(found: Figures, base: Figures, other: Figures) -> float:
    """How many times the rate of `other`; 0 if that answered nothing.

    The base is measured more often than the others, which have their ratio to it.
    """
    if found is base:
        return 1 / other.ratio if other.ratio else 0.0
    return median(found.over(other) or [0.0])


def times(results: Results, base: Contender, others: list[Contender]) -> str:
    """The time of a call at each, and what it adds to a direct call."""
    rows = []
    for c in sorted({c for _label, c in results}):
        direct = results[base.label, c]
        for who in (base, *others):
            found = results[who.label, c]
            p50, p99 = found.p50 - direct.p50, found.p99 - direct.p99
            shown = f"{found.p50:.1f} ({p50:+.1f})", f"{found.p99:.1f} ({p99:+.1f})"
            rows.append(
                [
                    who.label,
                    str(c),
                    judged(shown[0], p50 <= P50_MS, who, c, P50_MS),
                    judged(shown[1], p99 <= P99_MS, who, c, P99_MS),
                ]
            )
    head = ["server", "connections", "p50 ms (added)", "p99 ms (added)"]
    return table(head, rows)


def listed(bare: Server, ours: list[Server], local: list[Server], rounds: int) -> str:
    """`tools/list` of 500 upstream tools beside 500 tools of the code."""
    batch = [server for server in ours if server.name.endswith("batch")]
    base = Contender("bare MCPServer", bare, listing('"greet'))
    others = []
    for mine, far in zip(local, batch, strict=True):
        others.append(Contender(f"{mine.name}: of the code", mine, listing('"greet')))
        shown = listing('"bench__greet')
        others.append(Contender(f"{far.name}: of the upstream server", far, shown))
    results = compare(base, others, (1,), rounds, seconds=2)
    figures = ratios(results, base, others)
    return f"`tools/list` with {LISTED} tools:\n\n{figures}"
