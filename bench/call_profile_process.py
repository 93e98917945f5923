"""`python -m bench.call_profile_process APP CALLS`: CPU time of one process by package.

Calls the ASGI application without a network, so that only its own work is measured.
Prints JSON: microseconds per call in total, on the event loop, and by package.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import json
import os
import pstats
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench.wrk import GREETING, call

ROUNDS, WARM = 5, 200
GROUPS = {
    "the SDK": ("/mcp/", "/mcp_types/", "/starlette/", "/anyio/", "/sse_starlette/"),
    "pydantic": ("/pydantic/", "pydantic_core", "/jsonschema/"),
    "Portico": ("/mcp_bridge/", "/accounts/", "/config/"),
    "Django": ("/django/", "/asgiref/"),
    "SQLite": ("sqlite3",),
    "PostgreSQL": ("/psycopg/", "psycopg_binary"),
}
REST = "Python's own"


def scope_of(body: bytes, token: str) -> dict[str, Any]:
    """The ASGI scope of one `tools/call`."""
    sent = {**call().headers, "Content-Length": str(len(body)), "Host": "127.0.0.1:1"}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    headers = [(k.lower().encode(), v.encode()) for k, v in sent.items()]
    where = {"path": "/mcp", "raw_path": b"/mcp", "query_string": b"", "root_path": ""}
    ends = {"server": ("127.0.0.1", 1), "client": ("127.0.0.1", 5000), "state": {}}
    kind = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http"}
    asgi = {"asgi": {"version": "3.0", "spec_version": "2.3"}}
    return {**kind, **asgi, **where, **ends, "headers": headers}


class Driver:
    """Starts the application, calls it, stops it."""

    def __init__(self, app: Any, token: str) -> None:
        self.app, self.token = app, token
        self.body = call().bodies[0].encode()
        self.started, self.stopping = asyncio.Event(), asyncio.Event()
        self.begun = False

    async def lifespan(self) -> None:
        await self.app({"type": "lifespan", "state": {}}, self.events, self.answers)

    async def events(self) -> dict[str, Any]:
        """Send startup at once, and shutdown when `stopping` is set."""
        if self.begun:
            await self.stopping.wait()
            return {"type": "lifespan.shutdown"}
        self.begun = True
        return {"type": "lifespan.startup"}

    async def answers(self, event: dict[str, Any]) -> None:
        if "failed" in event["type"]:
            raise RuntimeError(event.get("message", "it does not start"))
        self.started.set()

    async def once(self) -> None:
        """Make one call. Raises RuntimeError for a wrong answer."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        await self.app(scope_of(self.body, self.token), receive, send)
        if sent[0]["status"] != 200 or GREETING not in sent[-1]["body"].decode():
            raise RuntimeError(f"a wrong answer: {sent}")

    async def many(self, calls: int) -> tuple[float, float]:
        """Microseconds of CPU per call: of the process, of the event loop's thread."""
        process, thread = time.process_time(), time.thread_time()
        for _ in range(calls):
            await asyncio.create_task(self.once())
        spent = time.process_time() - process, time.thread_time() - thread
        return spent[0] / calls * 1e6, spent[1] / calls * 1e6


async def measured(app: Any, token: str, calls: int) -> dict[str, Any]:
    driver = Driver(app, token)
    life = asyncio.create_task(driver.lifespan())
    await driver.started.wait()
    await driver.many(WARM)
    times = [await driver.many(calls) for _ in range(ROUNDS)]
    profile = cProfile.Profile()
    profile.enable()
    await driver.many(calls)
    profile.disable()
    driver.stopping.set()
    await life
    loop = median(of_loop for _all, of_loop in times)
    shares = by_package(pstats.Stats(profile))
    return {
        "all": median(of_all for of_all, _loop in times),
        "loop": loop,
        "packages": {name: share * loop for name, share in shares.items()},
    }


def by_package(stats: pstats.Stats) -> dict[str, float]:
    """Shares of own time. A built-in function counts for the calling package."""
    own: Counter[str] = Counter()
    for function, (_, _, spent, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if function[0] != "~" or group_of(function) != REST:
            own[group_of(function)] += spent
            continue
        for caller, (_, _, of_caller, _) in callers.items():
            own[group_of(caller)] += of_caller
    whole = sum(own.values())
    return {name: spent / whole for name, spent in own.items()}


def group_of(function: tuple[str, int, str]) -> str:
    """The group of a function, by its file; of a built-in function, by its name."""
    place = f"{function[0]} {function[2]}"
    for group, marks in GROUPS.items():
        if any(mark in place for mark in marks):
            return group
    return REST


def main() -> None:
    """Measure and print."""
    module, _, name = sys.argv[1].partition(":")
    tokens = Path(os.environ["BENCH_FOLDER"], "tokens")
    token = tokens.read_text().split()[0] if tokens.exists() else ""
    app = getattr(importlib.import_module(module), name)
    print(json.dumps(uvloop.run(measured(app, token, int(sys.argv[2])))))


if __name__ == "__main__":
    main()
