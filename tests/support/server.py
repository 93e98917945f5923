"""A real server: the ASGI application in uvicorn, on the tests' own database."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import NamedTemporaryFile, mkdtemp
from typing import Any

import httpx2
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.test import override_settings

from accounts.models import User
from accounts.tokens.issue import TokenPair, issue_tokens
from config.environment import Environment
from tests.apps.wait_guard.waits import MARK
from tests.support import fork_server, migrated_database
from tests.support.html_browser import Browser
from tests.support.ports import free_port
from tests.support.static_files import UNCOLLECTED

ROOT = Path(__file__).resolve().parent.parent.parent
STARTS_WITHIN = 90.0
LIMITS = [n for n in Environment.model_fields if n.startswith("LIMIT_")]
DEMO_PASSWORD = "portico-demo"
FILL = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("demo")
"""
"""Creates the tables of the extra apps, and the three users."""
SIGN = "from tests.support import migrated_database as m; m.sign_audit_head()"


def database_url() -> str:
    """The URL of the database that pytest-django made for this run."""
    found: dict[str, Any] = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    user, password = found.get("USER") or "", found.get("PASSWORD") or ""
    host = found.get("HOST") or found["OPTIONS"].get("host", "")
    port = found.get("PORT") or 5432
    if str(host).startswith("/"):
        return f"postgres://{user}:{password}@/{found['NAME']}?host={host}"
    return f"postgres://{user}:{password}@{host}:{port}/{found['NAME']}"


@cache
def in_process_transport() -> httpx2.WSGITransport:
    """Answers requests in this process, which has other settings than a server."""
    return httpx2.WSGITransport(app=get_wsgi_application())


@dataclass
class Portico:
    """A running server and its addresses."""

    port: int
    process: fork_server.Forked
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mcp_url(self) -> str:
        """The MCP endpoint."""
        return f"{self.url}/mcp"

    def issued(self, username: str, **options: Any) -> TokenPair:
        """Tokens of this server's issuer, without HTTP."""
        user = User.objects.get(username=username)
        with self.settings():
            return issue_tokens(user, **{"issued_via": "password", **options})

    def token(self, username: str, scope: str = "mcp", **options: Any) -> str:
        return self.issued(username, scope=scope, **options).access

    def signed_in(self, username: str, password: str = DEMO_PASSWORD) -> str:
        """An access token from the password endpoint."""
        body = {"username": username, "password": password}
        answer = httpx2.post(f"{self.url}/api/token/", json=body, verify=False)
        return str(answer.json()["access"])

    def settings(self) -> Any:
        """This server's issuer as this process's settings."""
        return override_settings(ISSUER_URL=self.url, RESOURCE_URL=self.mcp_url)

    @contextmanager
    def in_process(self) -> Iterator[Browser]:
        """A browser whose requests are answered in this process, at this address.

        HTTP would double the time. There are no rate limits.
        """
        transport = in_process_transport()
        here = {"STORAGES": UNCOLLECTED, "LOCKOUT_AFTER": 1000}
        here |= dict.fromkeys(LIMITS, "100000/minute")
        with self.settings(), override_settings(**here):
            with Browser(self.url, transport) as browser:
                yield browser

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


@contextmanager
def running_server(folder: Path, **environment: str) -> Iterator[Portico]:
    """Start a server, wait until it answers, and stop it afterwards.

    It has as many processes as WORKERS, or PROCESSES, says.
    """
    port = free_port()
    env = {**os.environ, **environment_of(folder, port), **environment}
    command = ["uvicorn", "config.asgi:application"]
    command += ["--port", str(port), "--lifespan", "on"]
    command += ["--http", "config.server.timeouts:TimeoutProtocol"]
    command += ["--loop", "config.server.event_loop:AcceptingLoop"]
    command += ["--no-access-log", "--no-proxy-headers", "--workers"]
    command += [environment.get("PROCESSES", env["WORKERS"])]
    command += ["--timeout-graceful-shutdown", environment.get("GRACE", "1")]
    log = folder / f"server-{port}.log"
    process = fork_server.start(command, env, log)
    server = Portico(port, process, log, env)
    try:
        wait_for(server)
        yield server
    finally:
        server.stop()
    waited = [
        line for line in log.read_text(errors="replace").splitlines() if MARK in line
    ]
    assert not waited, f"{waited[0]}: the stack is in {log}"


def manage(folder: Path, *arguments: str, **environment: str) -> None:
    """Run manage.py on the SQLite database in `folder`."""
    env = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": "", **environment}
    code, output = run_manage(env, *arguments)
    assert code == 0, output


def run_manage(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    """(exit code, output) of manage.py with this environment."""
    with NamedTemporaryFile() as printed:
        out = Path(printed.name)
        code = fork_server.start(["manage.py", *arguments], env, out).wait(240)
        return code, out.read_text(errors="replace")


@cache
def prepared_folder() -> Path:
    """The result of `make serve` in an empty folder, made once; to be copied."""
    folder = Path(mkdtemp(dir=os.environ.get("DATA_DIR")))
    migrated_database.restore(folder / "portico.sqlite3")
    manage(folder, "up", "--prepare-only", EXTRA_APPS="")
    manage(folder, "shell", "-c", SIGN, EXTRA_APPS="")
    return folder


@cache
def filled_folder(extra_apps: str) -> Path:
    """The same with these apps and the sample users; to be copied."""
    folder = Path(mkdtemp(dir=os.environ.get("DATA_DIR")))
    copytree(prepared_folder(), folder, dirs_exist_ok=True)
    manage(folder, "shell", "-c", FILL, EXTRA_APPS=extra_apps)
    return folder


@contextmanager
def sqlite_server(folder: Path, **environment: str) -> Iterator[Portico]:
    """A server with its own SQLite database, as `make serve` prepares it."""
    apps = environment.get("EXTRA_APPS", "")
    copytree(filled_folder(apps), folder, dirs_exist_ok=True)
    secrets = {
        name.upper(): (folder / name).read_text()
        for name in ("secret_key", "key_encryption_key")
    }
    with running_server(folder, DATABASE_URL="", **secrets, **environment) as running:
        yield running


def environment_of(folder: Path, port: int) -> dict[str, str]:
    """The environment that the server shares with this process, and its own."""
    return {
        "DATA_DIR": str(folder),
        "DATABASE_URL": database_url(),
        "DATABASE_CONNECTIONS": "5",
        "SECRET_KEY": settings.SECRET_KEY,
        "KEY_ENCRYPTION_KEY": settings.KEY_ENCRYPTION_KEY,
        "PORT": str(port),
        "WORKERS": "1",
        "LOCKOUT_AFTER": "1000",
        "UPSTREAM_DISCOVERY_INTERVAL": "0",
        **dict.fromkeys(LIMITS, "100000/minute"),
        "EXTRA_APPS": "tests.apps.shop,tests.apps.wait_guard",
        "PYTHONWARNINGS": "default",
    }


def wait_for(server: Portico) -> None:
    """Wait for /healthz; the log if it never answers."""
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and server.process.poll() is None:
        try:
            httpx2.get(f"{server.url}/healthz", timeout=1, verify=False)
            return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"The server did not start:\n{server.log.read_text()}")
