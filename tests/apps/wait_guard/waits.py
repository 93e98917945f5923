"""Calls of unbounded time, which must not run inside a transaction."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from accounts.authentication.passwords import hashers
from accounts.http.outbound_calls import CallInTransaction, refuse_in_transaction

MARK = "Waited inside a transaction"
WAITS: list[tuple[Any, str]] = [
    (socket.socket, "connect"),
    (socket, "getaddrinfo"),
    (socket, "gethostbyname"),
    (time, "sleep"),
    (hashers, "hash_in_slot"),
    (rsa, "generate_private_key"),
]
"""The owner of each: connections, names, sleep, password hashes, RSA primes."""

logger = logging.getLogger(__name__)


def guarded(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, which fails inside a transaction; the server's log has the stack."""

    @wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            refuse_in_transaction()
        except CallInTransaction:
            logger.critical("%s: %s", MARK, name, stack_info=True)
            raise
        return work(*args, **kwargs)

    run.guarded = True  # type: ignore[attr-defined]
    return run


def plant() -> None:
    for where, name in WAITS:
        work = getattr(where, name)
        if not hasattr(work, "guarded"):
            setattr(where, name, guarded(name, work))
