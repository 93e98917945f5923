"""Argon2 as OWASP advises, and only so many at once: hashing knocks nobody over."""

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
from django.utils.translation import gettext as _

from accounts.rate_limits.errors import RateLimited

T = TypeVar("T")

_local = threading.local()


@cache
def _slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.HASHING_AT_ONCE)


@contextmanager
def hashing_slot() -> Iterator[None]:
    """One of HASHING_AT_ONCE per process, for this thread. Raises TooMany.

    Whoever holds one already (the sign-in door, around its look at the lock-out)
    hashes in it.
    """
    if getattr(_local, "holds", False):
        yield
        return
    if not _slots().acquire(timeout=settings.HASHING_WAIT):
        raise RateLimited(_("Too many people sign in at this moment; try again."), 1)
    _local.holds = True
    try:
        yield
    finally:
        _local.holds = False
        _slots().release()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.HASHING_AT_ONCE, "portico-hashing")


def hash_in_slot(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Do `work` in a slot, on a thread that is kept for it.

    Every request has a thread of its own and malloc an arena for each: 19 MiB of
    hashing would stay behind in every one of them (300 MB, measured with 16 arenas).
    """
    with hashing_slot():
        return _threads().submit(work, *args, **kwargs).result()


@contextmanager
def prehashed_password(raw: str) -> Iterator[None]:
    """Hash `raw` now; in the block hashing it costs nothing, once. Raises TooMany.

    For blocks that open a transaction: hashing waits for its turn, and everybody who
    writes would wait with it.
    """
    _local.ready = {raw: make_password(raw)} if raw else {}
    try:
        yield
    finally:
        _local.ready = {}


class TunedArgon2PasswordHasher(Argon2PasswordHasher):
    """19 MiB, two passes, one lane; Django's 100 MiB and 8 lanes are a DoS lever."""

    memory_cost = 19 * 1024
    time_cost = 2
    parallelism = 1

    def encode(self, password: str, *args: Any, **kwargs: Any) -> str:
        """As Argon2's, in a slot."""
        ready: str | None = getattr(_local, "ready", {}).pop(password, None)
        return ready or hash_in_slot(super().encode, password, *args, **kwargs)

    def verify(self, *args: Any, **kwargs: Any) -> bool:
        """As Argon2's, in a slot."""
        return hash_in_slot(super().verify, *args, **kwargs)


class ClientSecretHasher(PBKDF2PasswordHasher):
    """For secrets made here: random enough that guessing needs no slowing down."""

    algorithm = "accounts_client_secret"
    iterations = 1
