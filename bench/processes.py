"""Server processes: start, measure and stop them."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
STARTS_WITHIN = 180.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """One measured server: its command, its environment and valid tokens."""

    name: str
    python: Path
    app: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    workers: int = 1
    wsgi: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """uvicorn, or gunicorn with threads for a WSGI application."""
        python = [str(self.python), "-m"]
        if self.wsgi:
            bind = ["--bind", f"127.0.0.1:{self.port}", "--keep-alive", "60"]
            threads = ["--threads", "4", "--log-level", "warning"]
            return [*python, "gunicorn", self.app, *bind, *threads]
        listen = ["--port", str(self.port), "--workers", str(self.workers)]
        quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "auto"]
        # Portico runs with the same protocol class and loop as in production.
        ours = self.app.startswith("config.asgi")
        http = "config.server.timeouts:TimeoutProtocol" if ours else "httptools"
        loop = "config.server.event_loop:AcceptingLoop" if ours else "uvloop"
        fast = ["--loop", loop, "--http", http]
        return [*python, "uvicorn", self.app, *listen, *quiet, *fast]

    def start(self) -> None:
        """Start the process; `wait` waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        env = {**os.environ, "WORKERS": str(self.workers), **self.environment}
        env["BENCH_FOLDER"] = str(self.folder)
        log = (self.folder / f"{self.port}.log").open("wb")
        self.process = subprocess.Popen(
            self.command(), cwd=ROOT, env=env, stdout=log, stderr=log
        )

    def wait(self) -> None:
        """Wait until it answers. Raises RuntimeError with its log if it does not."""
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end and self.running:
            with suppress(httpx2.TransportError):
                httpx2.post(f"{self.url}/mcp", timeout=5)
                return
            time.sleep(0.1)
        log = (self.folder / f"{self.port}.log").read_text()
        raise RuntimeError(f"{self.name} did not start:\n{log[-3000:]}")

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Terminate it; kill it after 10 seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def pids(self) -> list[int]:
        """Ids of the workers, or of the only process."""
        assert self.process is not None
        below = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        names = below.read_text().split()
        return [int(n) for n in names if _serves(int(n))] or [self.process.pid]

    def cpu_seconds(self) -> float:
        """CPU time of its processes so far."""
        return sum(_cpu(pid) for pid in self.pids())

    def memory_mb(self) -> float:
        """Resident memory of the largest worker, in MB."""
        return max(_resident(pid) for pid in self.pids())


def _serves(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"resource_tracker" not in command


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
