"""Database errors as advice for the command line."""

from __future__ import annotations

from django.conf import settings
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
