"""Argon2 as OWASP advises, and only so many at once: hashing knocks nobody over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, PBKDF2PasswordHasher
from django.utils.translation import gettext as _

from accounts.toomany import TooMany

_mine = threading.local()


@cache
def _slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.HASHING_AT_ONCE)


@contextmanager
def hashing_slot() -> Iterator[None]:
    """One of HASHING_AT_ONCE per process, for this thread. Raises TooMany.

    Whoever holds one already (the sign-in door, around its look at the lock-out)
    hashes in it.
    """
    if getattr(_mine, "holds", False):
        yield
        return
    if not _slots().acquire(timeout=settings.HASHING_WAIT):
        raise TooMany(_("Too many people sign in at this moment; try again."), 1)
    _mine.holds = True
    try:
        yield
    finally:
        _mine.holds = False
        _slots().release()


class TunedArgon2PasswordHasher(Argon2PasswordHasher):
    """19 MiB, two passes, one lane; Django's 100 MiB and 8 lanes are a DoS lever."""

    memory_cost = 19 * 1024
    time_cost = 2
    parallelism = 1

    def encode(self, *args: Any, **kwargs: Any) -> str:
        """As Argon2's, in a slot."""
        with hashing_slot():
            return str(super().encode(*args, **kwargs))

    def verify(self, *args: Any, **kwargs: Any) -> bool:
        """As Argon2's, in a slot."""
        with hashing_slot():
            return bool(super().verify(*args, **kwargs))


class ClientSecretHasher(PBKDF2PasswordHasher):
    """For secrets made here: random enough that guessing needs no slowing down."""

    algorithm = "accounts_client_secret"
    iterations = 1
