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
            f"{settings.DATA_DIR} cannot be written; set DATA_DIR to a folder of yours."
        )
    if "no such" in text or "does not exist" in text:
        return f"The database is not prepared ({text}); run manage.py migrate."
    return f"The database cannot be used ({text}); check DATABASE_URL."
