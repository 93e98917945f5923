"""Errors of the database and of apps as advice for the command line."""

from __future__ import annotations

import linecache
import sys
import traceback
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError


def database_remedy(error: DatabaseError) -> str:
    """One sentence with the fix, for errors of SQLite and PostgreSQL."""
    text = " ".join(str(error).split()) or "no detail"
    if "is locked" in text:
        return (
            "The database is locked by another process; stop it (another "
            "`make serve`?) and try again."
        )
    if "unable to open" in text or "readonly" in text:
        return (
            f"{settings.DATA_DIR} is not writable; set DATA_DIR to a writable folder."
        )
    if "no such" in text or "does not exist" in text:
        return f"The database schema is incomplete ({text}); run manage.py migrate."
    return f"The database does not work ({text}); check DATABASE_URL."


class BrokenApp(ImproperlyConfigured):
    """An app of EXTRA_APPS cannot be imported; the text has file, line and fix."""


FIXES = {
    SyntaxError: "Correct the syntax of this line, then start again.",
    ModuleNotFoundError: "Install the missing package in .venv, or correct the name.",
    ImportError: "Correct the name that is imported, then start again.",
}
OURS = ("accounts", "config", "mcp_bridge", "manage.py")


def app_remedy(error: BaseException) -> str:
    """Three lines: file and line, error, fix. Empty if no app's code is involved."""
    place = place_of(error)
    if place is None:
        return ""
    file, line = place
    source = linecache.getline(file, line).strip()
    what = str(error.msg if isinstance(error, SyntaxError) else error).splitlines()
    fix = next((text for kind, text in FIXES.items() if isinstance(error, kind)), "")
    return "\n".join(
        (
            f"{file}, line {line}: {source}",
            f"{type(error).__name__}: {what[0] if what else ''}",
            f"Fix: {fix or 'Correct this line, then start again.'}",
        )
    )


def place_of(error: BaseException) -> tuple[str, int] | None:
    """File and line of the last code that belongs to an app."""
    if isinstance(error, SyntaxError) and error.filename and is_app(error.filename):
        return error.filename, error.lineno or 1
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_app(frame.filename):
            return frame.filename, frame.lineno or 1
    return None


def is_app(file: str) -> bool:
    """Whether the file belongs neither to Portico nor to Python or a library."""
    path = Path(file)
    if not path.is_file() or "site-packages" in path.parts:
        return False
    ours = any(path.is_relative_to(settings.BASE_DIR / name) for name in OURS)
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    libraries = any(path.is_relative_to(Path(root) / "lib") for root in roots)
    return not ours and not libraries
