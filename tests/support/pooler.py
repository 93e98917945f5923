"""PgBouncer in transaction mode, in front of the database of this run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

from tests.support.ports import free_port, taken
from tests.support.requirements_skip import skip_or_fail

CONFIG = """
[databases]
{name} = host={host} port={port}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 4
logfile = {folder}/pgbouncer.log
"""


@contextmanager
def running_pooler(folder: Path) -> Iterator[str]:
    """The URL of the database through a pooler with four connections."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        skip_or_fail("pgbouncer", "apt-get install pgbouncer")
    known: dict[str, Any] = connection.get_connection_params()
    own, password = free_port(), known.get("password") or ""
    user = known.get("user") or "postgres"
    (folder / "users.txt").write_text(f'"{user}" "{password}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            host=known.get("host") or "/var/run/postgresql",
            port=known.get("port") or 5432,
            name=connection.settings_dict["NAME"],
            password=f" password={password}" if password else "",
            own=own,
            folder=folder,
        )
    )
    account = unprivileged(folder, str(known.get("host") or ""))
    command = [str(program), str(config), *account]
    before = sessions()
    with (folder / "pgbouncer.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for(own, process, folder)
        yield f"postgres://{user}@127.0.0.1:{own}/{connection.settings_dict['NAME']}"
    finally:
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        # PostgreSQL ends its sessions a moment later; only then it drops databases.
        time.sleep(1)
        with connection.cursor() as cursor:
            for pid in sessions() - before:
                cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def sessions() -> set[int]:
    """The sessions of PostgreSQL in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        )
        return {pid for (pid,) in cursor.fetchall()} - {0}


def unprivileged(folder: Path, host: str) -> list[str]:
    """PgBouncer refuses to run as root, and must reach the socket of PostgreSQL."""
    if os.geteuid():
        return []
    owner = os.stat(host).st_uid if host.startswith("/") else 0
    account = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent not in (Path("/"), Path("/tmp")):  # noqa: S108
            parent.chmod(parent.stat().st_mode | 0o011)
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return ["-u", account.pw_name]


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        if taken(port):
            return
        time.sleep(0.05)
    raise AssertionError((folder / "pgbouncer.out").read_text(errors="replace"))
