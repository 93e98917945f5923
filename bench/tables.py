"""The tables of docs/benchmarks.md: servers, loads and rows."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median

import httpx2

from bench import targets
from bench.interleaved import Contender, Results, compare
from bench.processes import Server
from bench.report_page import table
from bench.servers import REFRESHES, BenchServers, serving
from bench.wrk import LEGACY, Load, call, listing, message

CONNECTIONS = (1, 16, 64)


def contender(server: Server, load: Load | None = None, label: str = "") -> Contender:
    """A server with a load; the default is `tools/call`."""
    return Contender(label or server.name, server, load or call())


def ratios(results: Results, base: Contender, others: list[Contender]) -> str:
    """Ratios to the base, one column per concurrency, with rates and CPU."""
    levels = sorted({c for _label, c in results})
    head = ["server", *(f"ratio at {c}" for c in levels)]
    head += [
        f"calls/s at {levels[-1]}",
        f"CPU us at {levels[-1]}",
        f"p99 ms at {levels[-1]}",
    ]
    rows = []
    for who in (base, *others):
        cells = [who.label]
        for c in levels:
            goal = targets.to_bare(who.label, c)
            figures = results[who.label, c]
            cells.append("1" if who is base else targets.cell(figures, goal))
        last = results[who.label, levels[-1]]
        cells += [f"{last.rate:,.0f}", f"{last.cpu:,.0f}", f"{last.p99:.1f}"]
        rows.append(cells)
    return f"{table(head, rows)}\n\n{targets.wrong(results)}"


def calls(pool: BenchServers, rounds: int) -> str:
    """Ratios to the bare server, and to each peer."""
    bare = pool.bare()
    ours = [pool.portico("SQLite", mode) for mode in ("batch", "durable", "off")]
    if "PostgreSQL" in pool.vendors:
        ours += [pool.portico("PostgreSQL", mode) for mode in ("batch", "durable")]
    peers = [pool.sdk_bearer(), pool.fastmcp()]
    for vendor in pool.vendors:
        peers += [pool.naive(vendor), pool.mcpz(vendor)]
    threaded = pool.threaded(next(p for p in peers if "mcpz" in p.name))
    peers.append(threaded)
    with serving(bare, *ours, *peers):
        base = contender(bare)
        others = [contender(server) for server in (*ours, *peers)]
        results = compare(base, others, CONNECTIONS, rounds)
    first = ratios(results, base, others)
    return f"{first}\n\n{against(results, ours, peers)}"


def against(results: Results, ours: list[Server], peers: list[Server]) -> str:
    """Ratios to each peer's rate in the same rounds."""
    head = [
        "how many times the rate of",
        *(s.name.removeprefix("Portico, ") for s in ours),
    ]
    rows = []
    for peer in peers:
        for c in CONNECTIONS:
            cells = [f"{peer.name}, at {c}"]
            for server in ours:
                vendor = "PostgreSQL" if "PostgreSQL" in server.name else "SQLite"
                times = results[server.name, c].over(results[peer.name, c])
                value = median(times) if times else 0.0
                goal = targets.against(peer.name, vendor) if c > 1 else None
                said = targets.verdict(value, goal, over=True)
                cells.append(f"{value:.2f} {said}".strip())
            rows.append(cells)
    return table(head, rows)


def session(server: Server) -> str:
    """Open a session of the older protocol; returns its id."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}}
    hello["clientInfo"] = {"name": "bench", "version": "1"}
    request = message("initialize", LEGACY, hello, "")
    bearer = {"Authorization": f"Bearer {server.tokens[0]}"} if server.tokens else {}
    url = f"{server.url}/mcp"
    headers = {**request.headers, **bearer}
    answer = httpx2.post(url, content=request.bodies[0], headers=headers, timeout=20)
    session_id = answer.headers["mcp-session-id"]
    ready = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
    httpx2.post(url, content=ready, headers={**headers, "Mcp-Session-Id": session_id})
    return str(session_id)


def in_session(server: Server) -> Load:
    """`tools/call` in a session; each request has a different id."""
    load = call(LEGACY, session(server))
    body = json.loads(load.bodies[0])
    return replace(
        load, bodies=tuple(json.dumps({**body, "id": i}) for i in range(1, 2049))
    )


def eras(pool: BenchServers, rounds: int) -> str:
    """The older protocol, without and with sessions."""
    texts = []
    for title, sessions in (("without", "off"), ("with", "on")):
        bare = pool.bare(BENCH_SESSIONS=sessions)
        ours = [pool.portico(v, MCP_SESSIONS=sessions) for v in pool.vendors]
        peers = [] if sessions == "on" else [pool.sdk_bearer(), pool.fastmcp()]
        with serving(bare, *ours, *peers):
            loads = [
                in_session(s) if sessions == "on" else call(LEGACY)
                for s in (bare, *ours, *peers)
            ]
            base = contender(bare, loads[0])
            others = [
                contender(s, load, s.name + (", sessions" if sessions == "on" else ""))
                for s, load in zip((*ours, *peers), loads[1:], strict=True)
            ]
            results = compare(base, others, CONNECTIONS, rounds)
        texts.append(f"2025-11-25 {title} sessions, JSON answers:")
        texts.append(ratios(results, base, others))
    return "\n\n".join(texts)


def tools(pool: BenchServers, rounds: int) -> str:
    """Ten thousand tools: a call, the whole list, a list of one in a hundred."""
    bare = pool.bare(BENCH_TOOLS="10000")
    ours = [
        pool.portico(v, "batch", "tools", BENCH_TOOLS="10000") for v in pool.vendors
    ]
    with serving(bare, *ours):
        base = contender(bare)
        others = [contender(server) for server in ours]
        called = ratios(compare(base, others, (1, 16), rounds), base, others)
        listed = contender(bare, listing('"greet"'), f"{bare.name}, all 10,000")
        rows = [c for server in ours for c in listings(pool, server)]
        results = compare(listed, rows, (1,), min(rounds, 3), seconds=3)
    lists = ratios(results, listed, rows)
    return f"`tools/call`:\n\n{called}\n\n`tools/list`:\n\n{lists}"


def listings(pool: BenchServers, server: Server) -> list[Contender]:
    """Lists for a caller with all tools, one with 101 roles, and one with few tools."""
    vendor = "PostgreSQL" if "PostgreSQL" in server.name else "SQLite"
    all_tokens = pool.database(vendor, "tools").tokens
    callers = ((0, "all 10,000"), (2, "all, 101 roles"), (1, "100 of 10,000"))
    return [
        contender(
            replace(server, tokens=[all_tokens[at]]),
            listing('"greet"'),
            f"{server.name}: {who}",
        )
        for at, who in callers
    ]


def revoked(pool: BenchServers, rounds: int) -> str:
    """Calls with one thousand and with one million revoked tokens."""
    rows = []
    for vendor in pool.vendors:
        few, many = pool.portico(vendor), pool.portico(vendor, kind="large")
        with serving(few, many):
            base = contender(few, label="1,000 revoked")
            other = contender(many, label="1,000,000 revoked")
            results = compare(base, [other], (1, 16, 64), rounds)
        rows += within(results, vendor, base, other, targets.MANY_REVOKED)
    return table(
        ["database, connections", "calls/s, 1,000", "1,000,000", "ratio"], rows
    )


def within(
    results: Results,
    vendor: str,
    base: Contender,
    other: Contender,
    goal: float | None,
) -> list[list[str]]:
    """Rows that compare two loads."""
    rows = []
    for c in sorted({c for _label, c in results}):
        one, two = results[base.label, c], results[other.label, c]
        cells = [f"{vendor}, {c}", f"{one.rate:,.0f}", f"{two.rate:,.0f}"]
        rows.append([*cells, targets.cell(two, goal)])
    return rows


def metrics(pool: BenchServers, rounds: int) -> str:
    """The same server without and with Prometheus metrics, two workers each."""
    vendor = pool.vendors[-1]
    shared = {"WORKERS": "2", "MCP_SESSIONS": "off"}
    off = pool.portico(vendor, workers=2, **shared)
    on = pool.portico(vendor, workers=2, METRICS_TOKEN="measured-" * 3, **shared)
    with serving(off, on):
        base = contender(off, label="metrics off")
        other = contender(on, label="metrics on")
        results = compare(base, [other], CONNECTIONS, rounds)
    rows = within(results, f"{vendor}, two workers", base, other, None)
    head = ["database, connections", "calls/s, metrics off", "on", "ratio"]
    return table(head, rows)


def tokens(pool: BenchServers, rounds: int) -> str:
    """One token and ten thousand tokens in use, on the same server."""
    rows = []
    for vendor in pool.vendors:
        server = pool.portico(vendor)
        with serving(server):
            base = contender(server, label="one token")
            all_callers = replace(server, tokens=pool.database(vendor).tokens)
            other = contender(all_callers, label="10,000 tokens")
            # Fill the cache first: each slice starts with the first token again.
            while other.measure(16, 15)[0].requests < 2 * len(all_callers.tokens):
                pass
            results = compare(base, [other], (16, 64), rounds, seconds=2)
        rows += within(results, vendor, base, other, targets.MANY_TOKENS)
    return table(["database, connections", "calls/s, one", "10,000", "ratio"], rows)


def workers(pool: BenchServers, rounds: int) -> str:
    """Two workers, compared with a bare server with two workers."""
    bare = replace(pool.bare(), workers=2)
    ours = [pool.portico(v, "batch", workers=2) for v in pool.vendors]
    with serving(bare, *ours):
        base = contender(bare)
        others = [contender(server) for server in ours]
        return ratios(compare(base, others, (16, 64), rounds), base, others)


def memory(pool: BenchServers, rounds: int) -> str:
    """Resident memory of a worker after load with ten thousand tokens.

    The first page loads what only Django's pages need; a health check is such a page.
    """
    bare = pool.bare()
    ours = [pool.portico(v, mode) for v in pool.vendors for mode in ("durable",)]
    rows: list[list[str]] = []
    with serving(bare, *ours):
        for server in (bare, *ours):
            vendor = "PostgreSQL" if "PostgreSQL" in server.name else "SQLite"
            raws = pool.database(vendor).tokens if server is not bare else []
            contender(replace(server, tokens=raws)).measure(16, 2 + 2 * rounds)
            now = server.memory_mb()
            over = now - (float(rows[0][1]) if rows else now)
            goal = targets.MEMORY_MB
            met = f"{'meets' if over <= goal else '**misses**'} {goal:.0f}"
            page = ""
            if server is not bare:
                httpx2.get(f"{server.url}/healthz", timeout=60).raise_for_status()
                page = f"{server.memory_mb():.1f}"
            met = met if over else ""
            rows.append([server.name, f"{now:.1f}", f"{over:.1f}", met, page])
    names = ["server", "MB a worker", "over bare", "", "after a first page"]
    return table(names, rows)


def issuing(pool: BenchServers, rounds: int) -> str:
    """Tokens issued by password, and refreshed, beside SimpleJWT on the same database.

    Both hash with the same parameters and sign with ES256. SimpleJWT hashes as many
    passwords at once as there are threads, so Portico may use both cores, too.
    """
    wait, at_once = "20", "2"
    pairs = [
        (
            pool.naive(v, REFRESHES, "ES256"),
            pool.portico(v, "durable", HASHING_WAIT=wait, HASHING_AT_ONCE=at_once),
        )
        for v in pool.vendors
    ]
    texts = []
    form = {"Content-Type": "application/json"}
    with serving(*(server for pair in pairs for server in pair)):
        for path, once in (("/api/token/", False), ("/api/token/refresh/", True)):
            texts.append(f"`{path}`:")
            for pair in pairs:
                base, ours = (issuing_load(s, path, form, once) for s in pair)
                results = compare(base, [ours], (1, 4), min(rounds, 4))
                texts.append(ratios(results, base, [ours]))
    return "\n\n".join(texts)


def issuing_load(
    server: Server, path: str, headers: dict[str, str], once: bool
) -> Contender:
    """Password requests, or refresh requests with each token once."""
    ours = server.name.startswith("Portico")
    if once:
        file = server.folder / "tokens.refresh"
        raws = file.read_text().split()[:REFRESHES]
        bodies = [{"refresh": raw} for raw in raws]
    elif ours:
        names = [f"user-{i}" for i in range(1000) if i % 50 != 49]
        password = "a password for all of them 7"
        bodies = [{"username": name, "password": password} for name in names]
    else:
        bodies = [{"username": "caller", "password": "caller"}]
    load = Load(path, headers, tuple(map(json.dumps, bodies)), '"access"', once)
    name = server.name.replace("audit durable", "tokens")
    name = name.replace(" + ORM per request", "")
    return Contender(name, replace(server, tokens=[]), load)
