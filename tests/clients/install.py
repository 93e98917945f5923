"""Third-party clients, installed once: npm packages and an older SDK."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from tests.support.requirements_skip import skip_or_fail
from tests.tools.install import install

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODULES = HERE / "node_modules"
OLDER = ROOT / ".cache" / "mcp1"
"""A virtual environment with the SDK before 2.0."""
FASTMCP = ROOT / ".cache" / "fastmcp"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Runs on both databases happen in parallel and share the installation."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def node() -> str:
    """Node 22 from the npm package `node`, with the pinned packages beside it."""
    return str(npm_programs(HERE) / "node")


@cache
def agents() -> Path:
    """The folder with `claude` and `codex`; half a gigabyte, so apart from the rest."""
    return npm_programs(HERE / "agents")


def npm_programs(folder: Path) -> Path:
    """The programs of the packages that the lock file in `folder` pins."""
    npm = shutil.which("npm")
    if npm is None:
        skip_or_fail("npm", "install Node.js: apt-get install npm")
    modules, lock = folder / "node_modules", folder / "package-lock.json"
    stamp = modules / ".installed"
    with one_at_a_time():
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            command = [str(npm), "ci", "--no-audit", "--no-fund", "--silent"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                skip_or_fail("the npm registry", f"npm ci failed: {done.stderr[-300:]}")
            stamp.write_bytes(lock.read_bytes())
    return modules / ".bin"


@cache
def older_python() -> str:
    """A Python with `mcp<2` from its own hashed lock file."""
    return python_with(OLDER, HERE / "mcp1-requirements.txt")


@cache
def fastmcp_python() -> str:
    """A Python with FastMCP from its own hashed lock file."""
    return python_with(FASTMCP, HERE / "fastmcp-requirements.txt")


def python_with(folder: Path, lock: Path) -> str:
    """The Python of a virtual environment that has the packages of a lock file.

    Those that this environment has in the same version are shared: installing them
    would take half of the time.
    """
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = missing_packages(lock.read_text())
    with one_at_a_time():
        if not stamp.exists() or stamp.read_text() != wanted:
            bare = ["-m", "venv", "--clear", "--without-pip", str(folder)]
            subprocess.run([sys.executable, *bare], check=True)
            (own,) = folder.glob("lib/python*/site-packages")
            (own / "shared.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
            missing = folder / "missing.txt"
            missing.write_text(wanted)
            if install(missing, str(python)):
                skip_or_fail("the package index", "its packages were not installed")
            stamp.write_text(wanted)
    return str(python)


def missing_packages(lock: str) -> str:
    """The entries of a lock file without the packages that this Python has."""
    own = {packed(d.name): d.version for d in distributions()}
    entries = re.split(r"^(?=[a-zA-Z0-9])", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if not is_one_of(own, entry))


def is_one_of(own: dict[str, str], entry: str) -> bool:
    """Whether an entry, which begins with `name[extra]==version`, is installed."""
    found = re.match(r"([\w.-]+)(?:\[.*?\])?==([^\s;]+)", entry)
    return found is not None and own.get(packed(found[1])) == found[2]


def packed(name: str) -> str:
    """The normalized name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run(command: list[str], timeout: float = 60, **environment: str) -> str:
    """The output of a command; the test fails with its errors if it fails."""
    env = {**os.environ, **environment}
    done = subprocess.run(
        command, cwd=HERE, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout
