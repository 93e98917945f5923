"""The tables of the page: which servers, which load, and the rows they give."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import median

import httpx2

from bench import targets
from bench.interleaved import Contender, Results, compare
from bench.processes import Server
from bench.report_page import table
from bench.servers import REFRESHES, Stage, serving
from bench.wrk import LEGACY, Load, call, listing, message

CONNECTIONS = (1, 16, 64)


def contender(server: Server, load: Load | None = None, label: str = "") -> Contender:
    """A server with a load, `tools/call` unless told."""
    return Contender(label or server.name, server, load or call())


def ratios(found: Results, base: Contender, others: list[Contender]) -> str:
    """Rows of ratio to base, one column a concurrency, with rates and CPU beside."""
    seen = sorted({c for _label, c in found})
    head = ["server", *(f"ratio at {c}" for c in seen)]
    head += [f"calls/s at {seen[-1]}", f"CPU us at {seen[-1]}", f"p99 ms at {seen[-1]}"]
    rows = []
    for who in (base, *others):
        cells = [who.label]
        for c in seen:
            goal = targets.to_bare(who.label, c)
            figures = found[who.label, c]
            cells.append("1" if who is base else targets.cell(figures, goal))
        last = found[who.label, seen[-1]]
        cells += [f"{last.rate:,.0f}", f"{last.cpu:,.0f}", f"{last.p99:.1f}"]
        rows.append(cells)
    return f"{table(head, rows)}\n\n{targets.wrong(found)}"


def calls(stage: Stage, rounds: int) -> str:
    """Ratio to bare, and against the peers."""
    bare = stage.bare()
    ours = [stage.portico("SQLite", mode) for mode in ("batch", "durable", "off")]
    if "PostgreSQL" in stage.vendors:
        ours += [stage.portico("PostgreSQL", mode) for mode in ("batch", "durable")]
    peers = [stage.sdk_bearer(), stage.fastmcp()]
    for vendor in stage.vendors:
        peers += [stage.naive(vendor), stage.mcpz(vendor)]
    threaded = stage.threaded(next(p for p in peers if "mcpz" in p.name))
    peers.append(threaded)
    with serving(bare, *ours, *peers):
        base = contender(bare)
        others = [contender(server) for server in (*ours, *peers)]
        found = compare(base, others, CONNECTIONS, rounds)
    first = ratios(found, base, others)
    return f"{first}\n\n{against(found, ours, peers)}"


def against(found: Results, ours: list[Server], peers: list[Server]) -> str:
    """How many times each peer's rate, from the same rounds."""
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
                times = found[server.name, c].over(found[peer.name, c])
                value = median(times) if times else 0.0
                goal = targets.against(peer.name, vendor) if c > 1 else None
                said = targets.verdict(value, goal, over=True)
                cells.append(f"{value:.2f} {said}".strip())
            rows.append(cells)
    return table(head, rows)


def session(server: Server) -> str:
    """A session of the older protocol: its id."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}}
    hello["clientInfo"] = {"name": "bench", "version": "1"}
    asked = message("initialize", LEGACY, hello, "")
    bearer = {"Authorization": f"Bearer {server.tokens[0]}"} if server.tokens else {}
    url = f"{server.url}/mcp"
    headers = {**asked.headers, **bearer}
    answer = httpx2.post(url, content=asked.bodies[0], headers=headers, timeout=20)
    found = answer.headers["mcp-session-id"]
    ready = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
    httpx2.post(url, content=ready, headers={**headers, "Mcp-Session-Id": found})
    return str(found)


def in_session(server: Server) -> Load:
    """`tools/call` in a session, each request with an id of its own."""
    load = call(LEGACY, session(server))
    body = json.loads(load.bodies[0])
    return replace(
        load, bodies=tuple(json.dumps({**body, "id": i}) for i in range(1, 2049))
    )


def eras(stage: Stage, rounds: int) -> str:
    """The older protocol, without and with sessions."""
    texts = []
    for title, sessions in (("without", "off"), ("with", "on")):
        bare = stage.bare(BENCH_SESSIONS=sessions)
        ours = [stage.portico(v, MCP_SESSIONS=sessions) for v in stage.vendors]
        peers = [] if sessions == "on" else [stage.sdk_bearer(), stage.fastmcp()]
        with serving(bare, *ours, *peers):
            loads = [
                in_session(s) if sessions == "on" else call(LEGACY)
                for s in (bare, *ours, *peers)
            ]
            base = contender(bare, loads[0])
            others = [
                contender(s, load)
                for s, load in zip((*ours, *peers), loads[1:], strict=True)
            ]
            found = compare(base, others, CONNECTIONS, rounds)
        texts.append(f"2025-11-25 {title} sessions, JSON answers:")
        texts.append(ratios(found, base, others))
    return "\n\n".join(texts)


def tools(stage: Stage, rounds: int) -> str:
    """Ten thousand tools: a call, the whole list, a list of one in a hundred."""
    bare = stage.bare(BENCH_TOOLS="10000")
    ours = [
        stage.portico(v, "batch", "tools", BENCH_TOOLS="10000") for v in stage.vendors
    ]
    with serving(bare, *ours):
        base = contender(bare)
        others = [contender(server) for server in ours]
        called = ratios(compare(base, others, (1, 16), rounds), base, others)
        listed = contender(bare, listing('"greet"'), f"{bare.name}, all 10,000")
        rows = [c for server in ours for c in listings(stage, server)]
        found = compare(listed, rows, (1,), min(rounds, 3), seconds=3)
    lists = ratios(found, listed, rows)
    return f"`tools/call`:\n\n{called}\n\n`tools/list`:\n\n{lists}"


def listings(stage: Stage, server: Server) -> list[Contender]:
    """The list of one who sees all, of one with 101 roles, and of one who sees few."""
    vendor = "PostgreSQL" if "PostgreSQL" in server.name else "SQLite"
    all_tokens = stage.database(vendor, "tools").tokens
    told = ((0, "all 10,000"), (2, "all, 101 roles"), (1, "100 of 10,000"))
    return [
        contender(
            replace(server, tokens=[all_tokens[at]]),
            listing('"greet"'),
            f"{server.name}: {who}",
        )
        for at, who in told
    ]


def revoked(stage: Stage, rounds: int) -> str:
    """One thousand and one million revoked tokens, a hundred thousand users each."""
    rows = []
    for vendor in stage.vendors:
        few, many = stage.portico(vendor), stage.portico(vendor, kind="large")
        with serving(few, many):
            base = contender(few, label="1,000 revoked")
            other = contender(many, label="1,000,000 revoked")
            found = compare(base, [other], (1, 16, 64), rounds)
        rows += within(found, vendor, base, other, targets.MANY_REVOKED)
    return table(
        ["database, connections", "calls/s, 1,000", "1,000,000", "ratio"], rows
    )


def within(
    found: Results,
    vendor: str,
    base: Contender,
    other: Contender,
    goal: float | None,
) -> list[list[str]]:
    """Rows that set two loads side by side."""
    rows = []
    for c in sorted({c for _label, c in found}):
        one, two = found[base.label, c], found[other.label, c]
        cells = [f"{vendor}, {c}", f"{one.rate:,.0f}", f"{two.rate:,.0f}"]
        rows.append([*cells, targets.cell(two, goal)])
    return rows


def metrics(stage: Stage, rounds: int) -> str:
    """The same server without and with Prometheus metrics, two workers each."""
    vendor = stage.vendors[-1]
    shared = {"WORKERS": "2", "MCP_SESSIONS": "off"}
    off = stage.portico(vendor, workers=2, **shared)
    on = stage.portico(vendor, workers=2, METRICS_TOKEN="measured-" * 3, **shared)
    with serving(off, on):
        base = contender(off, label="metrics off")
        other = contender(on, label="metrics on")
        found = compare(base, [other], CONNECTIONS, rounds)
    rows = within(found, f"{vendor}, two workers", base, other, None)
    head = ["database, connections", "calls/s, metrics off", "on", "ratio"]
    return table(head, rows)


def tokens(stage: Stage, rounds: int) -> str:
    """One token in use and ten thousand, on the same server."""
    rows = []
    for vendor in stage.vendors:
        server = stage.portico(vendor)
        with serving(server):
            base = contender(server, label="one token")
            everybody = replace(server, tokens=stage.database(vendor).tokens)
            other = contender(everybody, label="10,000 tokens")
            # Until each has been seen: a slice begins with the first of them anew.
            while other.bear(16, 15)[0].requests < 2 * len(everybody.tokens):
                pass
            found = compare(base, [other], (16, 64), rounds, seconds=2)
        rows += within(found, vendor, base, other, targets.MANY_TOKENS)
    return table(["database, connections", "calls/s, one", "10,000", "ratio"], rows)


def workers(stage: Stage, rounds: int) -> str:
    """Two workers beside bare with two; the machine's cores bound both."""
    bare = replace(stage.bare(), workers=2)
    ours = [stage.portico(v, "batch", workers=2) for v in stage.vendors]
    with serving(bare, *ours):
        base = contender(bare)
        others = [contender(server) for server in ours]
        return ratios(compare(base, others, (16, 64), rounds), base, others)


def memory(stage: Stage, rounds: int) -> str:
    """Resident memory of a worker after load with ten thousand tokens."""
    bare = stage.bare()
    ours = [stage.portico(v, mode) for v in stage.vendors for mode in ("durable",)]
    rows: list[list[str]] = []
    with serving(bare, *ours):
        for server in (bare, *ours):
            vendor = "PostgreSQL" if "PostgreSQL" in server.name else "SQLite"
            held = stage.database(vendor).tokens if server is not bare else []
            contender(replace(server, tokens=held)).bear(16, 2 + 2 * rounds)
            now = server.memory_mb()
            over = now - (float(rows[0][1]) if rows else now)
            goal = targets.MEMORY_MB
            met = f"{'meets' if over <= goal else '**misses**'} {goal:.0f}"
            rows.append([server.name, f"{now:.1f}", f"{over:.1f}", met if over else ""])
    return table(["server", "MB a worker", "over bare", ""], rows)


def issuing(stage: Stage, rounds: int) -> str:
    """Tokens issued for a password, and refreshed, a second."""
    naive = stage.naive("SQLite", REFRESHES)
    ours = [stage.portico(v, "durable", HASHING_WAIT="20") for v in stage.vendors]
    texts = []
    form = {"Content-Type": "application/json"}
    with serving(naive, *ours):
        for path, once in (("/api/token/", False), ("/api/token/refresh/", True)):
            made = [issuing_load(server, path, form, once) for server in (naive, *ours)]
            found = compare(made[0], made[1:], (1, 4), min(rounds, 4))
            texts.append(f"`{path}`:\n\n{ratios(found, made[0], made[1:])}")
    return "\n\n".join(texts)


def issuing_load(
    server: Server, path: str, headers: dict[str, str], once: bool
) -> Contender:
    """Passwords to check, or refresh tokens to rotate once each."""
    ours = server.name.startswith("Portico")
    if once:
        file = server.folder / "tokens.refresh"
        held = file.read_text().split()[:REFRESHES]
        bodies = [{"refresh": raw} for raw in held]
    elif ours:
        names = [f"user-{i}" for i in range(1000) if i % 50 != 49]
        password = "a password for all of them 7"
        bodies = [{"username": name, "password": password} for name in names]
    else:
        bodies = [{"username": "caller", "password": "caller"}]
    load = Load(path, headers, tuple(map(json.dumps, bodies)), '"access"', once)
    name = server.name.replace(", audit durable", "").replace(" + ORM per request", "")
    return Contender(name, replace(server, tokens=[]), load)
