"""The servers of a run: Portico in its modes, and the peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.databases import Portico, Postgres
from bench.processes import ROOT, Server

PORTICO = ROOT / ".venv-served" / "bin" / "python"
"""Only production packages: some packages import others if these are installed."""
PEERS = ROOT / ".venv-bench" / "bin" / "python"
USERS, CALLERS, REFRESHES = 100_000, 10_000, 12_000
FEW, MANY = 1_000, 1_000_000
TOOLS = 10_000
LISTED = 500
OFFERED = {"tools": TOOLS, "local": LISTED}
"""Kind of database -> the number of tools that the code offers."""


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """Start all servers, wait for all, and stop them afterwards."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            server.stop()


@dataclass
class BenchServers:
    """Creates servers; prepares each database once, when it is first needed."""

    folder: Path
    postgres: Postgres

    def __post_init__(self) -> None:
        self.ready: dict[str, Portico] = {}

    @property
    def vendors(self) -> list[str]:
        return ["SQLite", *(["PostgreSQL"] if self.postgres.url else [])]

    def bare(self, **environment: str) -> Server:
        """`MCPServer` without authorization."""
        app, folder = "bench.peers.bare:app", self.folder / "bare"
        return Server("bare MCPServer", PORTICO, app, folder, environment)

    def sdk_bearer(self) -> Server:
        return self.with_key("MCPServer, SDK bearer auth, JWT", PORTICO, "sdk_bearer")

    def fastmcp(self) -> Server:
        return self.with_key("FastMCP, its JWT verifier", PEERS, "fast")

    def with_key(self, name: str, python: Path, module: str) -> Server:
        """A peer that verifies JWTs with a generated key."""
        server = Server(name, python, f"bench.peers.{module}:app", self.folder / module)
        server.tokens = [self.token_of(server, "keys")]
        return server

    def naive(self, vendor: str, refresh: int = 0, algorithm: str = "") -> Server:
        """SimpleJWT alone; `refresh` is how many refresh tokens it makes."""
        server = self.django_peer(
            "SimpleJWT + ORM per request", PORTICO, "naive", vendor
        )
        server.environment["BENCH_REFRESH"] = str(refresh)
        server.environment["BENCH_ALGORITHM"] = algorithm
        server.tokens = [self.token_of(server, "naive")]
        return server

    def mcpz(self, vendor: str) -> Server:
        """django-mcpz behind uvicorn."""
        server = self.django_peer("django-mcpz, its tokens", PEERS, "mcpz", vendor)
        server.tokens = [self.token_of(server, "mcpz")]
        return server

    def threaded(self, asgi: Server) -> Server:
        """The same django-mcpz behind gunicorn with threads."""
        app, name = asgi.app.replace(":app", ":wsgi"), f"{asgi.name}, gunicorn"
        folder, environment = asgi.folder, asgi.environment
        return Server(name, PEERS, app, folder, environment, asgi.tokens, wsgi=True)

    def django_peer(self, name: str, python: Path, module: str, vendor: str) -> Server:
        """A Django peer with an empty database."""
        folder = self.folder / f"{module}-{vendor}"
        app = f"bench.peers.{module}:app"
        shutil.rmtree(folder, ignore_errors=True)
        url = (
            self.postgres.create_database(f"bench_{module}")
            if vendor != "SQLite"
            else ""
        )
        return Server(f"{name}, {vendor}", python, app, folder, {"DATABASE_URL": url})

    def token_of(self, server: Server, module: str) -> str:
        """Prepare the peer; its module prints a token."""
        server.folder.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **server.environment, "BENCH_FOLDER": str(server.folder)}
        command = [str(server.python), "-m", f"bench.peers.{module}"]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{server.name} could not be prepared:\n{done.stderr}")
        return done.stdout.split()[-1]

    def new_url(self, vendor: str, name: str) -> str:
        """The URL of a new PostgreSQL database; empty for SQLite."""
        return self.postgres.create_database(name) if vendor != "SQLite" else ""

    def database(self, vendor: str, kind: str = "base") -> Portico:
        """`base`, `large` (a million revoked tokens) or `tools` (10,000 tools).

        `upstream` and `local` have few callers, and 500 tools each.
        """
        name = f"{kind}-{vendor}"
        if name not in self.ready:
            print(f"  preparing {name} ...", file=sys.stderr, flush=True)
            url = (
                self.postgres.create_database(f"bench_{kind}")
                if vendor != "SQLite"
                else ""
            )
            portico = Portico(self.folder / name, url)
            if kind in OFFERED:
                portico.options["BENCH_TOOLS"] = str(OFFERED[kind])
            count = MANY if kind == "large" else FEW
            few = kind in ("upstream", "local")
            refreshes = REFRESHES if kind == "base" else 0
            people = {"callers": 1 if few else CALLERS, "refresh": refreshes}
            users = FEW if few else USERS
            rows = {"users": users, "tokens": count, "revoked": count, "audit": 0}
            portico.prepare(**rows, **people)
            self.ready[name] = portico
        return self.ready[name]

    def portico(
        self,
        vendor: str,
        audit: str = "batch",
        kind: str = "base",
        workers: int = 1,
        **environment: str,
    ) -> Server:
        """A Portico on a prepared database, with one caller's token."""
        prepared = self.database(vendor, kind)
        options = {**prepared.environment, "AUDIT_DURABILITY": audit, **environment}
        options.setdefault("MCP_SESSIONS", "off")
        name = f"Portico, {vendor}, audit {audit}"
        app, tokens = "config.asgi:application", prepared.tokens[:1]
        return Server(name, PORTICO, app, prepared.folder, options, tokens, workers)
