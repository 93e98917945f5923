"""libpq.py PROGRAM ...: run a program of PostgreSQL on DATABASE_URL.

Every account of the host can list the arguments of a process, so they must not
contain the URL. Only the process's own account can read its environment and files.
"""

from __future__ import annotations

import os
import sys
import tempfile

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo


def options(url: str) -> dict[str, str]:
    """The URL as libpq's connection options; exits if libpq cannot parse it."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        # libpq's own message may repeat the password.
        sys.exit("DATABASE_URL: write it as postgres://user:password@host:port/name")


def service(connection: dict[str, str]) -> str:
    """Set a variable for each option; write options without one to a service file."""
    service_name = connection.setdefault("service", "portico")
    lines = [f"[{service_name}]"]
    for option in Conninfo.get_defaults():
        name = option.keyword.decode()
        if name in connection and option.envvar:
            os.environ[option.envvar.decode()] = connection[name]
        elif name in connection:
            lines.append(f"{name}={connection[name]}")
    if service_name == "portico":
        os.environ["PGSERVICEFILE"] = unlinked_file("\n".join([*lines, ""]))
    elif lines[1:]:
        sys.exit(f"DATABASE_URL: give the other options in the service {service_name}")
    return service_name


def unlinked_file(text: str) -> str:
    """The path of a file that only this process can open; it disappears at exit."""
    with tempfile.TemporaryFile() as file:
        handle = os.dup(file.fileno())
    os.write(handle, text.encode())
    os.lseek(handle, 0, os.SEEK_SET)
    os.set_inheritable(handle, True)
    return f"/dev/fd/{handle}"


def main(program: str, *arguments: str) -> None:
    """Replace this process by the program."""
    connection = options(os.environ["DATABASE_URL"])
    command = [program, f"--dbname=service={service(connection)}", *arguments]
    os.execvp(program, command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
