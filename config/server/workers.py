"""Checks and timeouts for server processes, but not for commands."""

from __future__ import annotations

import multiprocessing

from django.conf import settings

from config.environment import refuse

WRONG_WORKERS = (
    "WORKERS: set it to the value of `uvicorn --workers`, because sessions, limits and "
    "metrics depend on it."
)


def refuse_uncounted_workers() -> None:
    """In production, refuse several workers if WORKERS is 1.

    Each would open sessions that the other workers cannot serve.
    """
    one_of_several = multiprocessing.parent_process() is not None
    if (
        settings.ENVIRONMENT == "production"
        and settings.WORKERS == 1
        and one_of_several
    ):
        refuse([WRONG_WORKERS])


def bound_statements() -> None:
    """Set PostgreSQL timeouts, so that a caller of a slow statement gets 503.

    Commands such as migrate and purge have no timeouts. A pooler would refuse the
    options, or give them to others: there the role has the timeouts.
    """
    database = settings.DATABASES["default"]
    if "postgresql" in database["ENGINE"] and not settings.DATABASE_POOLER:
        database["OPTIONS"].setdefault("options", settings.SERVING_OPTIONS)
