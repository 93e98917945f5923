"""`python -m bench.call_profile_process APP CALLS`: CPU time of one process by package.

The ASGI application is driven without a network, so that what is left is its own work.
Prints JSON: microseconds a call in all, on the event loop, and of the loop by package.
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
    """One `tools/call` as an ASGI server hands it on."""
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
        self.told = False

    async def lifespan(self) -> None:
        """The application's life."""
        await self.app({"type": "lifespan", "state": {}}, self.events, self.answers)

    async def events(self) -> dict[str, Any]:
        """Start at once, stop when told."""
        if self.told:
            await self.stopping.wait()
            return {"type": "lifespan.shutdown"}
        self.told = True
        return {"type": "lifespan.startup"}

    async def answers(self, event: dict[str, Any]) -> None:
        """It is up."""
        if "failed" in event["type"]:
            raise RuntimeError(event.get("message", "it does not start"))
        self.started.set()

    async def once(self) -> None:
        """One call; its answer is looked at."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        await self.app(scope_of(self.body, self.token), receive, send)
        if sent[0]["status"] != 200 or GREETING not in sent[-1]["body"].decode():
            raise RuntimeError(f"a wrong answer: {sent}")

    async def many(self, calls: int) -> tuple[float, float]:
        """Microseconds of CPU a call: of the process, of the event loop's thread."""
        process, thread = time.process_time(), time.thread_time()
        for _ in range(calls):
            await asyncio.create_task(self.once())
        spent = time.process_time() - process, time.thread_time() - thread
        return spent[0] / calls * 1e6, spent[1] / calls * 1e6


async def measured(app: Any, token: str, calls: int) -> dict[str, Any]:
    """What is printed."""
    driver = Driver(app, token)
    life = asyncio.create_task(driver.lifespan())
    await driver.started.wait()
    await driver.many(WARM)
    found = [await driver.many(calls) for _ in range(ROUNDS)]
    profile = cProfile.Profile()
    profile.enable()
    await driver.many(calls)
    profile.disable()
    driver.stopping.set()
    await life
    loop = median(of_loop for _all, of_loop in found)
    shares = by_package(pstats.Stats(profile))
    return {
        "all": median(of_all for of_all, _loop in found),
        "loop": loop,
        "packages": {name: share * loop for name, share in shares.items()},
    }


def by_package(stats: pstats.Stats) -> dict[str, float]:
    """Shares of own time; a built-in function counts to the package that calls it."""
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
    """The group of a function by its file or, of built-in ones, its name."""
    told = f"{function[0]} {function[2]}"
    for group, marks in GROUPS.items():
        if any(mark in told for mark in marks):
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
