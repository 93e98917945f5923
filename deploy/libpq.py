"""libpq.py PROGRAM ...: run a program of PostgreSQL on DATABASE_URL.

Every account of the host can list a process's arguments, so no part of the URL goes
there. Its environment and its open files are for its own account only.
"""

from __future__ import annotations

import os
import sys
import tempfile

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo


def options(url: str) -> dict[str, str]:
    """What the URL says, as libpq reads it."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        # libpq's own message may repeat the password.
        sys.exit("DATABASE_URL: write it as postgres://user:password@host:port/name")


def service(given: dict[str, str]) -> str:
    """Put each option into its variable, those without one into a service file."""
    named = given.setdefault("service", "portico")
    lines = [f"[{named}]"]
    for option in Conninfo.get_defaults():
        name = option.keyword.decode()
        if name in given and option.envvar:
            os.environ[option.envvar.decode()] = given[name]
        elif name in given:
            lines.append(f"{name}={given[name]}")
    if named == "portico":
        os.environ["PGSERVICEFILE"] = nameless("\n".join([*lines, ""]))
    elif lines[1:]:
        sys.exit(f"DATABASE_URL: give the other options in the service {named}")
    return named


def nameless(text: str) -> str:
    """The path of a file that ends with the program and nobody else can open."""
    with tempfile.TemporaryFile() as file:
        handle = os.dup(file.fileno())
    os.write(handle, text.encode())
    os.lseek(handle, 0, os.SEEK_SET)
    os.set_inheritable(handle, True)
    return f"/dev/fd/{handle}"


def main(program: str, *arguments: str) -> None:
    """Become the program."""
    given = options(os.environ["DATABASE_URL"])
    called = [program, f"--dbname=service={service(given)}", *arguments]
    os.execvp(program, called)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
