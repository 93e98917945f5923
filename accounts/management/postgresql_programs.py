"""Run pg_dump and pg_restore on the server's database.

Every account of the host can list the arguments of a process, so they must not
contain the password. Only the process's own account can read its environment and files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import CommandError
from django.db import connection
from psycopg.pq import Conninfo

SERVICE = "portico"
MISSING = (
    "%s is not installed: install PostgreSQL's client programs (postgresql-client), "
    "not older than the server."
)


def run_program(program: str, *arguments: str) -> None:
    """Run it on the database of the settings. Raises CommandError."""
    path = shutil.which(program)
    if path is None:
        raise CommandError(MISSING % program)
    options = connection_options()
    service = options.setdefault("service", SERVICE)
    with environment(options) as (variables, handles):
        done = subprocess.run(  # noqa: S603
            [path, f"--dbname=service={service}", *arguments],
            env=variables,
            pass_fds=handles,
            stderr=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        raise CommandError(f"{program} failed: {done.stderr.strip()[-2000:]}")


def connection_options() -> dict[str, str]:
    """The options of libpq in DATABASE_URL, as Django passes them."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    given = connection.get_connection_params()
    return {name: str(v) for name, v in given.items() if name in known and v != ""}


@contextmanager
def environment(options: dict[str, str]) -> Iterator[tuple[dict[str, str], list[int]]]:
    """(environment, file descriptors) that tell a program how to connect.

    A service file loses blanks at the ends of values, so it has only those options that
    have no variable.
    """
    variables, lines = dict(os.environ), [f"[{options['service']}]"]
    for option in Conninfo.get_defaults():
        name = option.keyword.decode()
        if name in options and option.envvar:
            variables[option.envvar.decode()] = options[name]
        elif name in options:
            lines.append(f"{name}={options[name]}")
    if options["service"] != SERVICE:
        if lines[1:]:
            raise CommandError(
                "DATABASE_URL: give the other options in the service "
                f"{options['service']}."
            )
        yield variables, []
        return
    with tempfile.TemporaryFile("w") as file:
        file.write("\n".join([*lines, ""]))
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        variables["PGSERVICEFILE"] = f"/dev/fd/{file.fileno()}"
        yield variables, [file.fileno()]
