"""Python programs that start early: forks of a process that has imported the libraries.

Importing them takes three quarters of the time in which a server or a command starts.
`config`, `accounts` and `mcp_bridge` are not among them: they read the environment. The
second and later starts with equal `ready_portico.imported_with` are forks of a process
that has imported these, too. `quick_python()` is for tests whose shell, script or
program starts Python itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from tests.support import ready_portico

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
INHERITED = "TEST_PYTHON"
"""Names the quick Python of a process that starts this one, for the fork server."""
WRITING = os.O_WRONLY | os.O_APPEND
QUICK = """#!{python} -ISE
# Runs `NAME.py ...` or `-m NAME ...` in a fork, with these files and environment.
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({path!r})
mask = os.umask(0)
program = sys.argv[2:] if sys.argv[1] == "-m" else sys.argv[1:]
asked = {{"program": program, "env": dict(os.environ), "umask": mask}}
asked["folder"], asked["priority"] = os.getcwd(), os.nice(0)
socket.send_fds(line, [json.dumps(asked).encode() + b"\\n"], [0, 1, 2])
sys.exit(int(line.makefile().read() or 1))
"""
"""The text of a program that asks the process at `path`."""


class Line:
    """Requests to a process that forks, one at a time."""

    def __init__(self, line: socket.socket) -> None:
        self.line, self.answers = line, line.makefile()
        self.lock = Lock()

    def ask(self, **request: Any) -> Any:
        with self.lock:
            self.line.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(self.answers.readline())

    def close(self) -> None:
        self.answers.close()
        self.line.close()


class ForkServer(Line):
    """The process that has imported the libraries, and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self.folder = tempfile.TemporaryDirectory(prefix="fork-")
        path = f"{self.folder.name}/socket"
        self.python = Path(self.folder.name) / "python"
        self.python.write_text(QUICK.format(python=sys.executable, path=path))
        self.python.chmod(0o700)
        python = os.environ.get(INHERITED, sys.executable)
        command = [python, "-m", "tests.support.fork_server", path]
        with theirs:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        self.ready: dict[tuple[str, ...], Line | None] = {}
        """None after the first start."""
        self.deciding = Lock()
        atexit.register(self.close)

    def for_program(self, program: list[str], env: dict[str, str]) -> Line:
        """The process whose fork runs the program: this one, or a ready one."""
        key = ready_portico.imported_with(program, env)
        if key is None:
            return self
        with self.deciding:
            if key not in self.ready:
                self.ready[key] = None
                return self
            line = self.ready[key] = self.ready[key] or self.made_ready(env)
        return line

    def made_ready(self, env: dict[str, str]) -> Line:
        """A new process; this one if these settings stop it."""
        path = f"{self.folder.name}/{len(self.ready)}"
        self.ask(prepare=path, env=env)
        line = socket.socket(socket.AF_UNIX)
        line.connect(path)
        ready = Line(line)
        if ready.answers.readline():
            return ready
        ready.close()
        return self

    def close(self) -> None:
        for line in self.ready.values():
            if line and line is not self:
                line.close()
        super().close()
        self.process.wait(10)
        self.folder.cleanup()


@cache
def fork_server_of(pid: int) -> ForkServer:
    """The one of this process, started at its first use; forks have their own."""
    return ForkServer()


def fork_server() -> ForkServer:
    return fork_server_of(os.getpid())


def quick_python() -> str:
    """A program that does what this Python does with a file or a module."""
    server = fork_server()
    while not server.python.with_name("socket").exists():
        time.sleep(PAUSE)
    return str(server.python)


@dataclass
class Forked:
    """A process of the fork server, with the methods of `subprocess.Popen`."""

    pid: int
    parent: Line
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.parent.ask(wait=self.pid)
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
    parent = fork_server().for_program(program, env)
    pid = parent.ask(program=program, env=env, files=files, umask=umask)
    return Forked(pid, parent)


def listening(path: str) -> socket.socket:
    programs = socket.socket(socket.AF_UNIX)
    programs.bind(path)
    programs.listen()
    return programs


class Requests:
    """Requests of the tests by line, and of programs by their own connections."""

    def __init__(self, line: socket.socket, path: str) -> None:
        self.line, self.text = line, line.makefile()
        self.programs = listening(path)
        self.waiting: set[int] = set()
        """The forks that wait for a program."""
        self.ready: list[int] = []
        """The forks that have imported Portico."""

    def close(self) -> None:
        self.text.close()
        self.line.close()
        self.programs.close()

    def next_program(self) -> dict[str, Any]:
        """Answer requests until the end; in each new process return what it runs."""
        while True:
            ready, _, _ = select.select([self.line, self.programs], [], [])
            if self.programs in ready:
                request = self.of_a_program()
            else:
                request = self.of_a_test()
            if request:
                return request

    def of_a_test(self) -> dict[str, Any]:
        text = self.text.readline()
        if not text:
            # Their time counts for the process that waits for them.
            for pid in self.ready:
                exit_code(pid)
            sys.exit()
        request: dict[str, Any] = json.loads(text)
        answer: int | None
        if "wait" in request:
            answer = exit_code(request["wait"], os.WNOHANG)
        elif "prepare" in request:
            answer = self.make_ready(request["prepare"], request["env"])
        else:
            answer = os.fork()
            if not answer:
                files = request["files"]
                request["files"] = [os.open(f, WRITING) for f in files]
                request["files"].insert(0, os.open(os.devnull, os.O_RDONLY))
                return request
        self.line.sendall(json.dumps(answer).encode() + b"\n")
        return {}

    def make_ready(self, path: str, env: dict[str, str]) -> int:
        """In this process its id; 0 in the new one, which answers at `path`."""
        programs = listening(path)
        if pid := os.fork():
            programs.close()
            self.ready.append(pid)
            return pid
        self.close()
        self.programs, self.ready, self.waiting = programs, [], set()
        self.line = programs.accept()[0]
        self.text = self.line.makefile()
        ready_portico.load(env)
        return 0

    def of_a_program(self) -> dict[str, Any]:
        """One fork waits for the other, and sends its exit code."""
        asking = self.programs.accept()[0]
        with asking:
            text, files, _, _ = socket.recv_fds(asking, 1 << 20, 3)
            while not text.endswith(b"\n"):
                text += asking.recv(1 << 20)
            if not (waiting := os.fork()):
                if not (pid := os.fork()):
                    return {**json.loads(text), "files": files}
                asking.sendall(str(exit_code(pid)).encode())
                os._exit(0)
        self.waiting = {p for p in self.waiting if exit_code(p, os.WNOHANG) is None}
        self.waiting.add(waiting)
        for file in files:
            os.close(file)
        return {}


def exit_code(pid: int, options: int = 0) -> int | None:
    """Of a child; None while it runs and `options` do not wait."""
    ended, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if ended else None


def become(
    program: list[str],
    env: dict[str, str],
    files: list[int],
    umask: int,
    folder: str = "",
    priority: int = 0,
) -> None:
    """Run the program in this process, as if it had been started there."""
    os.umask(umask)
    os.nice(max(0, priority - os.nice(0)))
    os.environ.clear()
    os.environ.update(env)
    if env.get("PYTHONWARNINGS") == "default":
        warnings.simplefilter("default")
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if folder:
        os.chdir(folder)
    if ready_portico.is_loaded():
        ready_portico.read_settings()
    sys.argv = list(program)
    if program[0].endswith(".py"):
        sys.path[0] = str(Path(program[0]).parent.absolute())
        runpy.run_path(program[0], run_name="__main__")
    else:
        sys.path[0] = os.getcwd()
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
    asked = Requests(socket.socket(fileno=os.dup(0)), sys.argv[1])
    request = asked.next_program()
    asked.close()
    become(**request)


if __name__ == "__main__":
    main()
