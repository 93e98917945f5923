"""`python -m bench.scaling_process KIND SECONDS NUMBER`: one process of a load.

Waits for a line on stdin, works for some seconds, and prints how often it did.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta

import django
from django.utils import timezone

BATCH = 100
"""Events of one insert of the audit, as a busy process writes them."""


def changes(seconds: float, number: int) -> int:
    """Change a row that decisions read, each in a transaction."""
    from accounts.models import RoleAssignment

    rows = RoleAssignment.objects.order_by("pk")
    mine = RoleAssignment.objects.filter(pk=rows[number].pk)
    later = timezone.now() + timedelta(days=30)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        mine.update(expires_at=later + timedelta(seconds=count))
        count += 1
    return count


def looks(seconds: float, number: int) -> int:
    """Read the position of the change log, one read after the other."""
    from mcp_bridge.cache.readers import open_reader

    async def work() -> int:
        reader = open_reader()
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            await reader.current_position()
            count += 1
        reader.close()
        return count

    return asyncio.run(work())


def audit(seconds: float, number: int) -> int:
    """Insert call events in batches; the number of events."""
    from mcp_bridge.audit.bulk_insert import CallEvent, insert_events

    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        at = time.time()
        one = CallEvent(at, "tool.called", "allowed", "granted", "user-1", 1)
        event = one._replace(
            token_id=f"{number:032x}",
            object="tool greet",
            via="password",
            request_id=f"{count:032x}",
            duration_ms=1.0,
        )
        insert_events([event] * BATCH)
        count += BATCH
    return count


KINDS = {"changes": changes, "looks": looks, "audit": audit}


def main() -> None:
    """Work when the parent says so."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    kind, seconds, number = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    print(KINDS[kind](float(seconds), int(number)), flush=True)


if __name__ == "__main__":
    main()
