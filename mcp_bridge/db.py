"""The one seam between asynchronous code and Django's synchronous ORM.

`sync_to_async` outside Django's handler would put the whole process on one
thread, and no request signal would ever close a connection: both are done here.
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
    """`work` with stale connections closed before it and idle ones after it."""

    @wraps(work)
    def tidied(*args: P.args, **kwargs: P.kwargs) -> T:
        close_old_connections()
        try:
            return work(*args, **kwargs)
        finally:
            close_old_connections()

    return tidied


async def in_database(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run synchronous ORM code on a thread of our own pool and give its result."""
    hop = sync_to_async(
        closing_connections(work), thread_sensitive=False, executor=_threads
    )
    return await hop(*args, **kwargs)


async def with_orm_thread(work: Awaitable[T]) -> T:
    """The result of `work`, an asynchronous tool whose ORM calls get a thread.

    Without one of their own Django's `aget()` and friends of every call in the
    process would queue for a single thread. It is made at the first such call, and
    ended, its connections closed, after the tool.
    """
    context: Any = ThreadSensitiveContext()
    async with context:
        try:
            return await work
        finally:
            if context in SyncToAsync.context_to_thread_executor:
                await sync_to_async(connections.close_all)()
