"""Files with secrets are readable only by the server's account."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from config import environment
from config.environment import Environment
from tests.support.server import ROOT, running_server

pytestmark = pytest.mark.once
DATABASE = ("portico.sqlite3", "portico.sqlite3-wal", "portico.sqlite3-shm")
MADE = (*DATABASE, "secret_key", "key_encryption_key")


def manage(folder: Path, *arguments: str, umask: int = 0o022) -> tuple[int, str]:
    """(exit code, output) of manage.py in a new folder."""
    environment = {
        k: v for k, v in os.environ.items() if k not in Environment.model_fields
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**environment, "DATA_DIR": str(folder)},
        umask=umask,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """Files in it that other accounts may read."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and mode(p) & 0o077)


@pytest.mark.parametrize("command", [("up", "--prepare-only"), ("migrate", "-v", "0")])
def test_an_existing_folder_gets_private_files(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """DATA_DIR is 755 and the umask allows everything."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    code, output = manage(folder, *command, umask=0)
    assert code == 0, output
    assert {"portico.sqlite3", *MADE[3:]} <= {p.name for p in folder.iterdir()}
    assert open_to_others(folder) == []
    code, output = manage(folder, "doctor")
    assert "portico.W007" in output and f"chmod 700 {folder}" in output
    assert "portico.E008" not in output


def test_a_served_database_stays_private_with_all_its_files(tmp_path: Path) -> None:
    """-wal and -shm have the mode of the database; a server creates them too."""
    code, output = manage(tmp_path, "up", "--prepare-only", umask=0)
    assert code == 0, output
    secrets = {name.upper(): (tmp_path / name).read_text() for name in MADE[3:]}
    before = os.umask(0)
    try:
        with running_server(
            tmp_path, DATABASE_URL="", EXTRA_APPS="", **secrets
        ) as server:
            assert httpx2.get(f"{server.url}/readyz").status_code == 200
            assert {p.name for p in tmp_path.iterdir()} >= set(DATABASE)
            assert open_to_others(tmp_path) == [server.log.name]
    finally:
        os.umask(before)


def test_doctor_names_readable_files_and_the_fix(
    tmp_path: Path,
) -> None:
    """The printed command fixes each file and the folder."""
    folder = tmp_path / "a place"
    folder.mkdir()
    code, output = manage(folder, "up", "--prepare-only")
    assert code == 0, output
    with closing(sqlite3.connect(folder / DATABASE[0])) as reader:
        # SQLite keeps -wal and -shm while a connection is open.
        reader.execute("SELECT count(*) FROM django_migrations").fetchone()
        for name in DATABASE:
            (folder / name).chmod(0o640 if name.endswith("wal") else 0o644)
        folder.chmod(0o777)
        code, output = manage(folder, "doctor")
        assert code == 1 and "portico.E008" in output and "portico.E009" in output
        assert all(str(folder / name) in output for name in DATABASE)
        for command in re.findall(r"Run: (chmod .*)", output):
            subprocess.run(["sh", "-c", command], check=True)
        folder.chmod(0o700)
        code, output = manage(folder, "doctor")
    assert code == 0 and "can read" not in output, output


@pytest.mark.parametrize("name", MADE[3:])
def test_every_command_refuses_keys_that_others_can_read(
    tmp_path: Path, name: str
) -> None:
    manage(tmp_path, "check")
    (tmp_path / name).chmod(0o604)
    code, output = manage(tmp_path, "check")
    assert code == 1 and f"chmod 600 {tmp_path / name}" in output


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("PORT=8100\nISSUER_URL=https://h.example\n", False),
        ("SECRET_KEY=\n#KEY_ENCRYPTION_KEY=abc\nUNKNOWN=1\n", False),
        ("DATABASE_URL=sqlite:////srv/portico.sqlite3\n", False),
        ("DATABASE_URL=postgres://portico:word@db/portico\n", True),
        ("DATABASE_URL=postgres://portico:word@[db/portico\n", True),
        ("valkey_url=redis://:word@store/0\n", True),
        *((f"export {name}='x'\n", True) for name in ("SECRET_KEY", "EMAIL_PASSWORD")),
    ],
)
def test_doctor_names_a_readable_env_file(
    tmp_path: Path, monkeypatch: Any, text: str, secret: bool
) -> None:
    """Other accounts can read the checkout's .env."""
    path = tmp_path / ".env"
    monkeypatch.setitem(Environment.model_config, "env_file", path)
    assert environment.files_with_secrets() == []
    path.write_text(text)
    assert environment.files_with_secrets() == ([path] if secret else [])
