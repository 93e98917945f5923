"""The only place where asynchronous code calls Django's synchronous ORM.

Outside Django's handler `sync_to_async` uses one thread for the whole process, and no
request signal closes connections. This module solves both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="portico-db")


def closing_connections(work: Callable[P, T]) -> Callable[P, T]:
    """`work` that closes stale connections before and idle ones after it."""

    @wraps(work)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        close_old_connections()
        try:
            return work(*args, **kwargs)
        finally:
            close_old_connections()

    return wrapper


async def in_database(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run synchronous ORM code in a thread of our pool. Returns its result."""
    hop = sync_to_async(
        closing_connections(work), thread_sensitive=False, executor=_threads
    )
    return await hop(*args, **kwargs)


async def with_orm_thread(work: Awaitable[T]) -> T:
    """The result of `work`, an asynchronous tool, with an ORM thread for it.

    Without it, `aget()` and the other async ORM methods of all calls would queue for
    one thread. The first such method starts the thread; it ends, with its connections,
    after the tool.
    """
    context: Any = ThreadSensitiveContext()
    async with context:
        try:
            return await work
        finally:
            if context in SyncToAsync.context_to_thread_executor:
                await sync_to_async(connections.close_all)()
