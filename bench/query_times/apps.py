from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connection
from django.db.backends.signals import connection_created

Times = list[tuple[float, str]]
seen: ContextVar[Times | None] = ContextVar("seen", default=None)
"""(ms, SQL) of each query of the page that is being answered."""


def watch(connection: Any, **_signal: Any) -> None:
    connection.execute_wrappers.append(timed)


def timed(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
    """Run a query, and note how long it took."""
    start = clock()
    try:
        return execute(sql, parameters, many, context)
    finally:
        times = seen.get()
        if times is not None:
            times.append(((clock() - start) * 1000, sql))


def clock() -> float:
    """Seconds; of the processor on SQLite, which runs in this thread.

    So other work of the machine does not change the figure.
    """
    return time.thread_time() if connection.vendor == "sqlite" else time.monotonic()


def query_times(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Middleware: `X-Page` and `X-Slowest-Query` (ms), `X-Queries`, `X-Slowest-SQL`."""

    def answer(request: Any) -> Any:
        times: Times = []
        seen.set(times)
        start = clock()
        response = get_response(request)
        response["X-Page"] = f"{(clock() - start) * 1000:.1f}"
        slowest, sql = max(times, default=(0.0, ""))
        response["X-Queries"] = len(times)
        response["X-Slowest-Query"] = f"{slowest:.1f}"
        response["X-Slowest-SQL"] = (
            " ".join(sql.split())[:2000].encode("ascii", "replace").decode()
        )
        return response

    return answer


class QueryTimesConfig(AppConfig):
    """Adds the middleware; it must be an app because settings name no other hook."""

    name = "bench.query_times"

    def ready(self) -> None:
        connection_created.connect(watch)
        settings.MIDDLEWARE.insert(0, f"{__name__}.query_times")
