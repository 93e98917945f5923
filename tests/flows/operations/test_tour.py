"""The README's five-minute tour prints what the README shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support import migrated_database
from tests.support.fork_server import quick_python
from tests.support.ports import free_port
from tests.support.server import ROOT

pytestmark = pytest.mark.once
ENDS_WITHIN = 60.0
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """(command, output) of every console block."""
    found: list[tuple[str, str]] = []
    for block in BLOCK.findall((ROOT / "README.md").read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def matches(printed: str, shown: str) -> bool:
    """Whether the output is as shown; `...` matches any text."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the tracked files, their times and compiled modules.

    The environment is a link.

    `make` installs the packages again if a requirements file is newer than they are.
    """
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in names:
        target = tmp_path / "portico" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for folder in {Path(name).parent for name in names}:
        compiled = ROOT / folder / "__pycache__"
        if compiled.is_dir() and folder.parts[:1] != ("tests",):
            shutil.copytree(compiled, tmp_path / "portico" / folder / "__pycache__")
    link_environment(tmp_path / "portico" / ".venv")
    (tmp_path / "portico" / "var").mkdir(0o700)
    # `make serve` still migrates the app of the tour.
    migrated_database.restore(tmp_path / "portico" / "var" / "portico.sqlite3")
    return tmp_path / "portico"


PYTHON = """#!/bin/sh
if [ "$2" = up ]; then exec "{own}" "$@"; fi
exec "{quick}" "$@"
"""
"""Commands run in forks: each would import the libraries again. The server does not."""


def link_environment(target: Path) -> None:
    """The environment of the tests, with a Python that starts commands early."""
    (target / "bin").mkdir(parents=True)
    found = [*(ROOT / ".venv").iterdir(), *(ROOT / ".venv" / "bin").iterdir()]
    for path in found:
        if path.name not in ("bin", "python", ".runtime"):
            (target / path.relative_to(ROOT / ".venv")).symlink_to(path)
    (target / ".runtime").touch()
    python = target / "bin" / "python"
    own = ROOT / ".venv" / "bin" / "python"
    python.write_text(PYTHON.format(own=own, quick=quick_python()))
    python.chmod(0o755)


@pytest.fixture
def shell(checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """A shell that stays open over the tour."""
    names = ("PATH", "LANG", "HOME")
    env = {k: v for k, v in os.environ.items() if k in names} | {"PS1": ""}
    process = subprocess.Popen(
        ["bash", "--norc"],
        cwd=checkout,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    yield process
    process.kill()
    process.communicate()


def run_in_shell(shell: subprocess.Popen[str], command: str) -> str:
    """The output of a command in that shell."""
    assert shell.stdin is not None and shell.stdout is not None
    shell.stdin.write(f"{command}\necho '<end>'\n")
    shell.stdin.flush()
    printed = ""
    while (line := shell.stdout.readline()) != "<end>\n":
        assert line, f"$ {command}\n{printed}\nended the shell"
        printed += line
    return printed


def test_the_tour_prints_what_the_readme_shows(
    checkout: Path, shell: subprocess.Popen[str]
) -> None:
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("runs where `make test` made .venv")
    port, serving = free_port(), None
    try:
        for command, shown in steps():
            here = command.replace("8000", str(port))
            if command == "make serve":
                serving = serve(checkout, port)
                continue
            printed = run_in_shell(shell, here)
            shown = shown.replace("8000", str(port))
            assert matches(printed, shown), f"$ {here}\n{printed}\nnot:\n{shown}"
    finally:
        if serving is not None:
            os.killpg(serving.pid, signal.SIGTERM)
            serving.communicate(timeout=ENDS_WITHIN)
    assert len(steps()) >= 10


def serve(checkout: Path, port: int) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "HOME")}
    process = subprocess.Popen(
        ["make", "serve", f"PORT={port}"],
        cwd=checkout,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    # Reading the authorities at each attempt would take the time that it starts in.
    with httpx2.Client(verify=False, timeout=1) as http:
        while time.monotonic() < end:
            try:
                http.get(f"http://127.0.0.1:{port}/healthz")
                return process
            except httpx2.TransportError:
                time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    raise AssertionError(process.communicate()[0])
