"""A migrated SQLite database, kept between runs: migrating takes most of a short run.

The copy is migrated again, which only runs the handlers of `post_migrate`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from shutil import copyfile

from django.conf import settings

from accounts.models import AuditHead

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".cache" / "databases"
KEPT = 8
"""Databases of older code that stay in the folder."""
SOURCES = ("*/migrations/**/*.py", "*/models/**/*.py", "tests/apps/**/*.py")


@cache
def fingerprint() -> str:
    """A hash of everything that a migration of an empty database depends on."""
    parts = [sys.version, sqlite3.sqlite_version, *settings.INSTALLED_APPS]
    parts += map(repr, settings.MIGRATION_MODULES.items())
    parts += sorted(f"{d.name} {d.version}" for d in distributions())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            parts += [str(path.relative_to(ROOT)), path.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for a process that migrates: restoring its copy takes less time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def restore(target: Path) -> bool:
    """Copy the stored database to `target`; False if there is none for this code."""
    stored = FOLDER / f"{fingerprint()}.sqlite3"
    if not stored.exists():
        return False
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    copyfile(stored, target)
    stored.touch()
    return True


def store(source: Path) -> None:
    """Keep a copy of a database that was just migrated, and the newest others."""
    unfinished = FOLDER / f"{os.getpid()}.part"
    with closing(sqlite3.connect(source)) as database:
        database.execute("VACUUM INTO ?", [str(unfinished)])
    unfinished.replace(FOLDER / f"{fingerprint()}.sqlite3")
    stored = sorted(FOLDER.glob("*.sqlite3"), key=lambda path: path.stat().st_mtime)
    for path in stored[:-KEPT]:
        path.unlink(missing_ok=True)


def sign_audit_head() -> None:
    """Sign the row of a copied database with this process's KEY_ENCRYPTION_KEY."""
    head = AuditHead.objects.get()
    head.point_to(None)
    head.save()
