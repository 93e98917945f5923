"""Password hashes that cost a tenth of a millisecond instead of 45 ms of a processor.

Servers without the app `tests.apps.wait_guard` hash as in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accounts.authentication.passwords.hashers import TunedArgon2PasswordHasher

SHIPPED = (
    TunedArgon2PasswordHasher.memory_cost,
    TunedArgon2PasswordHasher.time_cost,
)
"""(KiB, passes) of production."""
LEAST = (8, 1)


def set_cost(cost: tuple[int, int]) -> None:
    hasher = TunedArgon2PasswordHasher
    hasher.memory_cost, hasher.time_cost = cost


def plant() -> None:
    set_cost(LEAST)


@contextmanager
def shipped_cost() -> Iterator[None]:
    """Hash as in production."""
    set_cost(SHIPPED)
    try:
        yield
    finally:
        plant()
