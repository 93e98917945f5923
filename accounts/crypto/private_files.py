"""Which files hold secrets, and which of them other accounts of the host may use."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection

SIDECARS = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; all of them hold its rows."""


def key_files() -> list[Path]:
    """The secrets that Portico makes where the environment gives none."""
    names = ("secret_key", "key_encryption_key")
    return [settings.DATA_DIR / name for name in names]


def database_files() -> list[Path]:
    """The SQLite database: password hashes and sessions are in it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return []
    path = name.removeprefix("file:").partition("?")[0]
    return [Path(path + end) for end in SIDECARS]


def exposed_paths(paths: Iterable[Path]) -> list[Path]:
    """Those that others may read or write."""
    return [path for path in paths if mode(path) & 0o077]


def replaceable_folders() -> Iterator[Path]:
    """Folders in which others may put another file in a secret one's place."""
    folders = {settings.DATA_DIR, *(path.parent for path in database_files())}
    for folder in sorted(folders):
        if mode(folder) & 0o022 and not mode(folder) & stat.S_ISVTX:
            yield folder


def mode(path: Path) -> int:
    """Its permissions; 0 if it is not there."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def chmod_command(how: str, paths: Iterable[Path]) -> str:
    """The command for a shell."""
    return shlex.join(["chmod", how, *map(str, paths)])
