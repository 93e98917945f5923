"""Django behind ASGI: a request is one step on a thread that others have used.

Django's own handler goes back to the event loop between middleware and view, and starts
a thread for each request. A new thread opens a new connection to SQLite, which takes
longer than the queries of most requests.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import connections
from django.http import FileResponse
from django.urls import set_script_prefix
from starlette.types import Scope

MOST_IDLE = 8
"""Threads that are kept for later requests, each with a connection to SQLite."""


class ThreadHandler(ASGIHandler):
    """Runs middleware and view together, on a thread of this request alone."""

    def __init__(self) -> None:
        self.load_middleware(is_async=False)
        self.idle: list[ThreadPoolExecutor] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        thread = self.idle.pop() if self.idle else new_thread()
        try:
            async with ThreadSensitiveContext(executor=thread):
                await self.handle(scope, receive, send)
        finally:
            self.keep(thread)

    def keep(self, thread: ThreadPoolExecutor) -> None:
        """Keep the thread for the next request, or let it end."""
        if len(self.idle) < MOST_IDLE:
            self.idle.append(thread)
        else:
            # Nothing else closes it before the garbage collector finds it.
            thread.submit(connections.close_all)
            thread.shutdown(wait=False)

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        """Like Django's, which sends signals and closes the response in more steps."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            response = await sync_to_async(self.respond)(scope, body)
            if response.streaming:
                await self.stream(response, leaving, send)
            elif not leaving.done():
                await self.send_response(response, send)
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    def respond(self, scope: Scope, body: Any) -> Any:
        """The response to a request; closed, unless it is a stream.

        Closing returns the database connection before a slow client reads.
        """
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=type(self), scope=scope)
        request, refusal = self.create_request(scope, body)
        response: Any = refusal if request is None else self.get_response(request)
        response._handler_class = type(self)
        response._resource_closers.append(body.close)
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        if not response.streaming:
            response.close()
        return response

    async def stream(
        self, response: Any, leaving: asyncio.Task[None], send: Any
    ) -> None:
        """Send a stream until it ends or the client leaves."""
        sending = asyncio.create_task(self.send_response(response, send))
        both = (sending, leaving)
        try:
            if not leaving.done():
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await sync_to_async(response.close)()
        if not sending.cancelled():
            sending.result()


def new_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "portico-django")
