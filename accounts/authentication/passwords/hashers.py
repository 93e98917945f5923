"""Argon2 with OWASP's parameters; a semaphore limits concurrent hashing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.hashers import (
    Argon2PasswordHasher,
    PBKDF2PasswordHasher,
    make_password,
)
from django.utils.translation import gettext_lazy as _

from accounts.http.outbound_calls import release_pooled_connections
from accounts.rate_limits.errors import RateLimited

T = TypeVar("T")

_local = threading.local()


@cache
def _slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.HASHING_AT_ONCE)


@contextmanager
def hashing_slot() -> Iterator[None]:
    """Acquire one of HASHING_AT_ONCE slots of this process. Raises RateLimited.

    Reentrant: PasswordBackend acquires the slot before it checks the lock-out.
    """
    if getattr(_local, "has_slot", False):
        yield
        return
    if not _acquire_slot():
        raise RateLimited(
            _("Too many people are signing in. Try again in a moment."), 1
        )
    _local.has_slot = True
    try:
        yield
    finally:
        _local.has_slot = False
        _slots().release()


def _acquire_slot() -> bool:
    """Wait HASHING_WAIT seconds, without a database connection that others need."""
    if _slots().acquire(blocking=False):
        return True
    release_pooled_connections()
    return _slots().acquire(timeout=settings.HASHING_WAIT)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.HASHING_AT_ONCE, "portico-hashing")


def hash_in_slot(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `work` in a slot, on a thread of a small pool. Raises RateLimited.

    Each request runs in a separate thread, and malloc keeps an arena per thread.
    Hashing there leaves 19 MiB in every arena (300 MB, measured with 16 arenas).
    """
    with hashing_slot():
        return _threads().submit(work, *args, **kwargs).result()


@contextmanager
def prehashed_password(raw: str) -> Iterator[None]:
    """Hash `raw` now; the first hashing of it in the block reuses the result.

    Raises RateLimited. Use it around a transaction: hashing waits for a slot, and every
    writer would wait for the transaction.
    """
    _local.ready = {raw: make_password(raw)} if raw else {}
    try:
        yield
    finally:
        _local.ready = {}


class TunedArgon2PasswordHasher(Argon2PasswordHasher):
    """19 MiB, two passes, one lane; Django's 100 MiB and 8 lanes make DoS easy."""

    memory_cost = 19 * 1024
    time_cost = 2
    parallelism = 1

    def encode(self, password: str, *args: Any, **kwargs: Any) -> str:
        """Hash in a slot. Raises RateLimited."""
        ready: str | None = getattr(_local, "ready", {}).pop(password, None)
        return ready or hash_in_slot(super().encode, password, *args, **kwargs)

    def verify(self, *args: Any, **kwargs: Any) -> bool:
        """Verify in a slot. Raises RateLimited."""
        return hash_in_slot(super().verify, *args, **kwargs)


class ClientSecretHasher(PBKDF2PasswordHasher):
    """For generated client secrets: they are random, so slow hashing adds nothing."""

    algorithm = "accounts_client_secret"
    iterations = 1
