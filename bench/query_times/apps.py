from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.backends.signals import connection_created

Times = list[tuple[float, str]]
seen: ContextVar[Times | None] = ContextVar("seen", default=None)
"""(ms, SQL) of each query of the page that is being answered."""


def watch(connection: Any, **_signal: Any) -> None:
    connection.execute_wrappers.append(timed)


def timed(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
    """Run a query, and note how long it took."""
    start = time.monotonic()
    try:
        return execute(sql, parameters, many, context)
    finally:
        times = seen.get()
        if times is not None:
            times.append(((time.monotonic() - start) * 1000, sql))


def query_times(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Middleware: `X-Slowest-Query` (ms), `X-Queries` and `X-Slowest-SQL`."""

    def answer(request: Any) -> Any:
        times: Times = []
        seen.set(times)
        response = get_response(request)
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
