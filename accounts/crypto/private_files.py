"""Files that hold secrets, and whether other accounts of the host may use them."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection

SIDECARS = ("", "-wal", "-shm", "-journal")
"""Suffixes of the files of a SQLite database; all of them contain rows."""


def key_files() -> list[Path]:
    """Return the key files that Portico creates if the environment sets no keys."""
    names = ("secret_key", "key_encryption_key")
    return [settings.DATA_DIR / name for name in names]


def database_files() -> list[Path]:
    """Return the files of the SQLite database: it has password hashes and sessions."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return []
    path = name.removeprefix("file:").partition("?")[0]
    return [Path(path + end) for end in SIDECARS]


def exposed_paths(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that other accounts may use."""
    return [path for path in paths if permissions(path) & 0o077]


def replaceable_folders() -> Iterator[Path]:
    """Yield folders in which other accounts may replace a secret file."""
    folders = {settings.DATA_DIR, *(path.parent for path in database_files())}
    for folder in sorted(folders):
        if permissions(folder) & 0o022 and not permissions(folder) & stat.S_ISVTX:
            yield folder


def permissions(path: Path) -> int:
    """Return the permission bits; 0 if the path does not exist."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def chmod_command(mode: str, paths: Iterable[Path]) -> str:
    """Return the shell command that sets `mode` on the paths."""
    return shlex.join(["chmod", mode, *map(str, paths)])
