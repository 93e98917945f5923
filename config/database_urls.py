"""DATABASE_URL as an entry of Django's DATABASES, also with several hosts."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import dj_database_url

SCHEMES = ("postgres", "postgresql", "sqlite")
FORM = (
    "write it as postgres://user:password@host:port/name, with special characters of "
    "the password as %XX, or as sqlite:///path"
)
HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")

SEVERAL_HOSTS: dict[str, Any] = {
    "target_session_attrs": "read-write",
    "connect_timeout": 3,
}
"""Options of libpq: use the host that takes writes, and skip a host that is silent."""


def parse(url: str) -> dict[str, Any]:
    """The entry of DATABASES. Raises ValueError; its text never has the password.

    Several hosts are written as `postgres://user@h1:5432,h2:5432/name` (libpq's form).
    """
    scheme, mark, rest = url.partition("://")
    if scheme not in SCHEMES or not mark:
        raise ValueError(f"write it as one of {', '.join(SCHEMES)} and ://...")
    authority, tail = split_authority(rest)
    login, at, hosts = authority.rpartition("@")
    servers = [host_and_port(text) for text in hosts.split(",")]
    first = hosts.partition(",")[0]
    try:
        found: dict[str, Any] = dict(
            dj_database_url.parse(f"{scheme}://{login}{at}{first}{tail}")
        )
    except ValueError:
        raise ValueError(FORM) from None
    if scheme != "sqlite" and not found["NAME"]:
        raise ValueError(f"it names no database: {FORM}")
    if len(servers) > 1:
        found["HOST"] = ",".join(host for host, _port in servers)
        found["PORT"] = ",".join(port for _host, port in servers)
        found["OPTIONS"] = {**SEVERAL_HOSTS, **found.get("OPTIONS", {})}
    return found


def split_authority(rest: str) -> tuple[str, str]:
    """What stands before and after the first `/`, `?` or `#`."""
    end = re.search(r"[/?#]|\Z", rest)
    at = end.start() if end else len(rest)
    return rest[:at], rest[at:]


def host_and_port(text: str) -> tuple[str, str]:
    """Host and port of one server; the port may be empty. Raises ValueError."""
    found = HOST.fullmatch(text)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError(FORM)
    return unquote(found["host"].strip("[]")), found["port"] or ""
