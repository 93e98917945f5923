"""Facts about the machine that the figures depend on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.databases import Postgres
from bench.processes import ROOT

PACKAGES = ("mcp", "uvicorn", "uvloop", "django", "djangorestframework-simplejwt")
PEERS = ("fastmcp-slim", "django-mcpz", "gunicorn")


def lines(database: Postgres, peers: Path) -> list[str]:
    """List items for the section about the machine."""
    facts = [
        f"{_cpu()}, {os.cpu_count()} cores, {_memory()} GiB of memory, "
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "peers: " + ", ".join(f"{name} {_peer(peers, name)}" for name in PEERS),
        f"{_first_line(['wrk', '-v'])}, SQLite {_sqlite()}",
    ]
    if database.url:
        settings = [
            f"`{n}` {database.setting(n)}" for n in ("fsync", "synchronous_commit")
        ]
        server = database.setting("server_version")
        facts.append(f"PostgreSQL {server}, on the same machine, {', '.join(settings)}")
    return [f"* {line}" for line in facts]


def stamp() -> str:
    """Time, commit and load average of a measurement."""
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    busy = f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}, {busy}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _sqlite() -> str:
    import sqlite3

    return sqlite3.sqlite_version


def _peer(python: Path, name: str) -> str:
    code = f"from importlib.metadata import version as v; print(v({name!r}))"
    return _first_line([str(python), "-c", code])


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "unknown"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0].partition(" Copyright")[0] if text else "unknown"
