"""Files with secrets are readable only by the server's account."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx2
import pytest

from config import environment
from config.environment import Environment
from tests.support.server import prepared_folder, run_manage, running_server

pytestmark = pytest.mark.once
DATABASE = ("portico.sqlite3", "portico.sqlite3-wal", "portico.sqlite3-shm")
WRITE = """
from django.db import connection
connection.cursor().execute("CREATE TABLE kept (id integer)")
"""
"""Creates the database; the migrations would take longer."""
MADE = (*DATABASE, "secret_key", "key_encryption_key")


def manage(folder: Path, *arguments: str, umask: int = 0o022) -> tuple[int, str]:
    """(exit code, output) of manage.py in a new folder."""
    environment = {
        k: v for k, v in os.environ.items() if k not in Environment.model_fields
    }
    before = os.umask(umask)
    try:
        return run_manage({**environment, "DATA_DIR": str(folder)}, *arguments)
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """Files in it that other accounts may read."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and mode(p) & 0o077)


def test_a_new_database_in_an_existing_folder_is_private(tmp_path: Path) -> None:
    """DATA_DIR is 755 and the umask allows everything."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    code, output = manage(folder, "shell", "-c", WRITE, umask=0)
    assert code == 0, output
    assert {"portico.sqlite3", *MADE[3:]} <= {p.name for p in folder.iterdir()}
    assert open_to_others(folder) == []


def test_a_served_database_stays_private_with_all_its_files(tmp_path: Path) -> None:
    """-wal and -shm have the mode of the database; a server creates them too."""
    copytree(prepared_folder(), tmp_path, dirs_exist_ok=True)
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


def test_doctor_names_readable_files_and_the_fix(tmp_path: Path) -> None:
    """The printed commands fix each file and the folder."""
    folder = tmp_path / "a place"
    copytree(prepared_folder(), folder)
    with closing(sqlite3.connect(folder / DATABASE[0])) as reader:
        # SQLite keeps -wal and -shm while a connection is open.
        reader.execute("SELECT count(*) FROM django_migrations").fetchone()
        for name in DATABASE:
            (folder / name).chmod(0o640 if name.endswith("wal") else 0o644)
        folder.chmod(0o777)
        code, output = manage(folder, "doctor")
        assert code == 1 and "portico.E008" in output and "portico.E009" in output
        assert all(str(folder / name) in output for name in DATABASE)
        commands = re.findall(r"Run: (chmod .*)", output)
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        assert open_to_others(folder) == [] and not mode(folder) & 0o022, commands
        folder.chmod(0o755)
        code, output = manage(folder, "doctor")
    assert code == 0 and "portico.W007" in output, output
    assert f"chmod 700 '{folder}'" in output and "portico.E008" not in output


@pytest.mark.parametrize("name", MADE[3:])
def test_every_command_refuses_keys_that_others_can_read(
    tmp_path: Path, name: str
) -> None:
    """Files of new keys are private, or the command would refuse both."""
    for key in MADE[3:]:
        (tmp_path / key).write_text("0123456789abcdef" * 4)
        (tmp_path / key).chmod(0o604 if key == name else 0o600)
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
