"""/readyz: whether this process can serve messages, and the parts that are not ready.

Proxies take a process out when it is not ready. A part that only slows or limits the
service is `degraded`: it is named, and the process stays in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse

from accounts.crypto.encryption import KeyUnreadable
from accounts.crypto.signing_keys import load_private_key
from accounts.models import SigningKey
from accounts.models.signing_keys import KeyState
from accounts.parsing.text import counted
from accounts.rate_limits import store
from mcp_bridge.cache import decision_cache
from mcp_bridge.server import mcp

logger = logging.getLogger(__name__)


class NotReady(Exception):
    """The message is public: /readyz shows it without authentication."""


@cache
def expected() -> frozenset[tuple[str, str]]:
    """The last migration of every app; cached, because the files do not change."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def database_file() -> None:
    """Check that the SQLite path still names the file that this process opened."""
    if decision_cache.replaced():
        raise NotReady("The database was replaced or removed: restart the server.")


def migrations() -> None:
    """Check that the schema is as new as the code, or newer during a roll-out."""
    missing = expected() - set(MigrationRecorder(connection).applied_migrations())
    if missing:
        waiting = counted(len(missing), "app waits", "apps wait")
        raise NotReady(f"{waiting} for manage.py migrate.")


def signing_key() -> None:
    """Check that an active signing key exists and can be decrypted."""
    key = SigningKey.objects.filter(state=KeyState.ACTIVE).first()
    if key is None:
        raise NotReady("No signing key is active: run manage.py rotate_signing_key.")
    load_private_key(key.kid, bytes(key.private_encrypted))


def shared_store() -> None:
    """Check that the store of the rate limits answers, if there is one.

    Without it, each process counts alone, and sign-ins are refused.
    """
    if not store.answers(settings.VALKEY_URL):
        raise NotReady("The store of the rate limits does not answer.")


def session_manager() -> None:
    """Check that the MCP session manager runs."""
    if not mcp.running:
        raise NotReady("The MCP session manager does not run.")


IN_DATABASE: list[Callable[[], None]] = [migrations, signing_key]
ELSEWHERE: list[Callable[[], None]] = [database_file, session_manager]
DISPENSABLE: list[Callable[[], None]] = [shared_store]
"""Parts without which messages are still served."""


def problem(part: Callable[[], None]) -> str:
    """The problem of one part; empty if it is ready."""
    try:
        part()
    except NotReady as error:
        return str(error)
    except KeyUnreadable:
        return "The signing key does not open with this KEY_ENCRYPTION_KEY."
    except DatabaseError as error:
        logger.warning("%s is not ready: %s", part.__name__, error)
        return "The database does not answer."
    return ""


def readyz(request: HttpRequest) -> JsonResponse:
    """200, or 503 with every part that is not ready; both name what is degraded.

    If the database does not answer, the parts in it are skipped: each would wait for
    the same timeout.
    """
    wrong = problems([database])
    wrong |= problems(ELSEWHERE if wrong else IN_DATABASE + ELSEWHERE)
    degraded = problems(DISPENSABLE)
    body: dict[str, Any] = {"status": "not ready" if wrong else "ready"}
    body |= {"problems": wrong} if wrong else {}
    body |= {"degraded": degraded} if degraded else {}
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": "5"} if wrong else {})
    return JsonResponse(body, status=503 if wrong else 200, headers=headers)


def problems(parts: list[Callable[[], None]]) -> dict[str, str]:
    """Name -> problem of the parts that are not ready."""
    results = {part.__name__: problem(part) for part in parts}
    return {name: text for name, text in results.items() if text}
