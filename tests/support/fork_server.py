"""Python programs that start early: forks of a process that has imported the libraries.

Importing them takes three quarters of the time in which a server or a command starts.
`config`, `accounts` and `mcp_bridge` are not among them: they read the environment.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARIES = (
    "aiohttp",
    "anyio.from_thread",
    "argon2",
    "cryptography.fernet",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "dj_database_url",
    "django.contrib.admin.options",
    "django.core.asgi",
    "django.core.management",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.loader",
    "django.test.signals",
    "drf_spectacular.utils",
    "fido2.server",
    "httpx2",
    "jsonschema",
    "jwcrypto.jwk",
    "jwcrypto.jwt",
    "jwt",
    "limits.storage",
    "mcp.server",
    "oauth2_provider.validators",
    "oauthlib.oauth2",
    "psycopg_pool",
    "pydantic_settings",
    "redis.asyncio",
    "rest_framework.serializers",
    "servestatic",
    "structlog",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.main",
    "uvicorn.protocols.http.httptools_impl",
)
"""What can be imported before the settings are known, and does not depend on them."""
PAUSE = 0.01


class ForkServer:
    """The process that has imported the libraries, and the connection to it."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.support.fork_server"]
        with theirs:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        self.answers = self.line.makefile()
        self.lock = Lock()
        atexit.register(self.close)

    def ask(self, **request: Any) -> Any:
        with self.lock:
            self.line.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(self.answers.readline())

    def close(self) -> None:
        self.answers.close()
        self.line.close()
        self.process.wait(10)


@cache
def fork_server_of(pid: int) -> ForkServer:
    """The one of this process, started at its first use; forks have their own."""
    return ForkServer()


def fork_server() -> ForkServer:
    return fork_server_of(os.getpid())


@dataclass
class Forked:
    """A process of the fork server, with the methods of `subprocess.Popen`."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = fork_server().ask(wait=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """`timeout` in seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(PAUSE)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    program: list[str], env: dict[str, str], out: Path, errors: Path | None = None
) -> Forked:
    """Start `python -m NAME ...` or `python NAME.py ...`.

    Its output is appended to `out` and `errors`, which may be the same file.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    files = [str(out), str(errors or out)]
    for file in files:
        Path(file).touch()
    pid = fork_server().ask(program=program, env=env, files=files, umask=umask)
    return Forked(pid)


def requests(line: socket.socket) -> dict[str, Any]:
    """Answer requests until the end; in each new process return what it runs."""
    for text in line.makefile():
        request: dict[str, Any] = json.loads(text)
        answer: int | None
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                return request
        line.sendall(json.dumps(answer).encode() + b"\n")
    sys.exit()


def become(program: list[str], env: dict[str, str], files: list[str]) -> None:
    """Run the program in this process, as if it had been started."""
    os.environ.clear()
    os.environ.update(env)
    if env.get("PYTHONWARNINGS") == "default":
        warnings.simplefilter("default")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, file in enumerate(files, start=1):
        written = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(written, number)
        os.close(written)
    sys.argv = list(program)
    if program[0].endswith(".py"):
        runpy.run_path(program[0], run_name="__main__")
    else:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    # Workers of a server are forks, too.
    workers = importlib.import_module("uvicorn._subprocess")
    vars(workers)["spawn"] = multiprocessing.get_context("fork")
    # Collecting garbage must not visit, and copy, the libraries in each process.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=os.dup(0)) as line:
        request = requests(line)
    os.umask(request["umask"])
    become(request["program"], request["env"], request["files"])


if __name__ == "__main__":
    main()
