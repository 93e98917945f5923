"""What holds for processes that serve, and not for commands."""

from __future__ import annotations

import multiprocessing

from django.conf import settings

from config.environment import refuse

STATEMENTS = (
    "-c statement_timeout=8s -c lock_timeout=4s "
    "-c idle_in_transaction_session_timeout=30s"
)
MEND = (
    "WORKERS: set it to what `uvicorn --workers` says, so that sessions, limits and "
    "metrics fit."
)


def refuse_uncounted_workers() -> None:
    """In production, stop a worker of several that was told it is alone.

    It would open sessions that the others do not know.
    """
    one_of_several = multiprocessing.parent_process() is not None
    if (
        settings.ENVIRONMENT == "production"
        and settings.WORKERS == 1
        and one_of_several
    ):
        refuse([MEND])


def bound_statements() -> None:
    """Let PostgreSQL end what takes too long, so that the caller gets 503 in time.

    Commands (migrate, purge) take as long as they need.
    """
    database = settings.DATABASES["default"]
    if "postgresql" in database["ENGINE"]:
        database["OPTIONS"].setdefault("options", STATEMENTS)
