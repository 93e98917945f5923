"""Django's requests on threads that others have used, each in one step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, reverse

from config.server import django_handler
from config.server.django_handler import ThreadHandler
from tests.support.asgi import GONE, Client, ask, chunk, http_scope, run

pytestmark = pytest.mark.once
SEEN: list[tuple[str, str]] = []
"""What ran, and the id of its thread."""
MEETING = threading.Barrier(2, timeout=10)


def note(what: str) -> str:
    SEEN.append((what, str(threading.get_ident())))
    return SEEN[-1][1]


class Noting:
    """A middleware with each hook that Django's own handler calls apart."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        note("middleware")
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *view: Any) -> None:
        note("process_view")


def thread(request: HttpRequest) -> HttpResponse:
    return HttpResponse(note("view") + request.body.decode())


def meet(request: HttpRequest) -> HttpResponse:
    MEETING.wait()
    return HttpResponse(note("view"))


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a defect")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            if "stop" not in request.GET:
                await asyncio.Event().wait()
            if "fail" in request.GET:
                raise RuntimeError("a defect")
        finally:
            SEEN.append(("ended", ""))

    return StreamingHttpResponse(parts())


def place(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{reverse('place')} {note('view')}")


urlpatterns = [
    path("thread", thread),
    path("place", place, name="place"),
    path("meet", meet),
    path("broken", broken),
    path("stream", stream),
]


def handler500(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=500)


@pytest.fixture
def handler(settings: Any) -> Iterator[ThreadHandler]:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [f"{__name__}.Noting"]
    settings.ALLOWED_HOSTS = ["*"]
    SEEN.clear()
    closed: Any = lambda **signal: note("closed")  # noqa: E731
    request_finished.connect(closed)
    yield ThreadHandler()
    request_finished.disconnect(closed)


def asked(handler: ThreadHandler, name: str, *events: Any, query: str = "") -> Client:
    scope = http_scope("POST", f"/{name}", query_string=query.encode())
    return ask(handler, scope, events or [chunk(b"")])


def test_a_request_is_one_step_on_one_thread(handler: ThreadHandler) -> None:
    client = asked(handler, "thread", chunk(b" and ", more=True), chunk(b"a body"))
    (name,) = {thread for _what, thread in SEEN}
    assert (client.status, client.body.decode()) == (200, f"{name} and a body")
    steps = ["middleware", "process_view", "view", "closed"]
    assert [what for what, _thread in SEEN] == steps


def test_later_requests_use_the_same_thread(handler: ThreadHandler) -> None:
    first, second = asked(handler, "thread"), asked(handler, "thread")
    assert first.body == second.body and len(handler.idle) == 1


def test_links_begin_with_the_prefix_of_the_same_request(
    handler: ThreadHandler,
) -> None:
    """Its thread has served others, behind another path of the proxy."""
    threads = set()
    for prefix in ("/portico", "", "/other"):
        scope = {**http_scope("POST", f"{prefix}/place"), "root_path": prefix}
        link, used = ask(handler, scope, [chunk(b"")]).body.decode().split()
        threads.add(used)
        assert link == f"{prefix}/place"
    assert len(threads) == 1


def test_requests_at_the_same_time_have_different_threads(
    handler: ThreadHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(django_handler, "MOST_IDLE", 1)
    clients = [Client([chunk(b"")]), Client([chunk(b"")])]

    async def both() -> None:
        scope = http_scope("GET", "/meet")
        await asyncio.gather(*(handler(scope, c.receive, c.send) for c in clients))

    run(both())
    assert len({client.body for client in clients}) == 2
    assert len(handler.idle) == 1


def test_a_thread_that_is_not_kept_closes_its_connections(
    handler: ThreadHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in a cycle, so they would stay until a full garbage collection."""
    closed: list[str] = []
    monkeypatch.setattr(django_handler, "MOST_IDLE", 1)
    monkeypatch.setattr(
        connections,
        "close_all",
        lambda: closed.append(threading.current_thread().name),
    )
    threads = [django_handler.new_thread() for _ in range(2)]
    names = [t.submit(lambda: threading.current_thread().name) for t in threads]
    for each in threads:
        handler.keep(each)
    assert handler.idle == threads[:1]
    threads[1].shutdown()
    assert closed == [names[1].result()]
    threads[0].shutdown()


def test_a_defect_is_a_500_and_gives_the_thread_back(handler: ThreadHandler) -> None:
    assert asked(handler, "broken").status == 500
    assert len(handler.idle) == 1 and SEEN[-1][0] == "closed"


def test_a_client_that_leaves_within_its_body_gets_nothing(
    handler: ThreadHandler,
) -> None:
    assert asked(handler, "thread", chunk(b"a", more=True), GONE).sent == []
    assert SEEN == [] and len(handler.idle) == 1


def test_a_stream_ends_and_is_closed_afterwards(handler: ThreadHandler) -> None:
    client = asked(handler, "stream", query="stop")
    assert client.body == b"one"
    assert [what for what, _thread in SEEN[-2:]] == ["ended", "closed"]


@pytest.mark.parametrize("name", ["thread", "stream"])
def test_a_client_that_left_meanwhile_gets_nothing(
    handler: ThreadHandler, name: str
) -> None:
    """The metrics count such a request as 499."""
    assert asked(handler, name, chunk(b""), GONE).sent == []
    assert SEEN[-1][0] == "closed" and len(handler.idle) == 1


class Reader(Client):
    """Leaves after the first part of the body."""

    async def receive(self) -> Any:
        while not self.events and not self.body:
            await asyncio.sleep(0)
        return self.events.pop() if self.events else GONE


def test_a_stream_ends_when_the_client_leaves(handler: ThreadHandler) -> None:
    reader = Reader([chunk(b"")])
    run(handler(http_scope("GET", "/stream"), reader.receive, reader.send))
    assert (reader.status, reader.body) == (200, b"one")
    assert [what for what, _thread in SEEN[-2:]] == ["ended", "closed"]


def test_a_stream_that_fails_is_closed_and_reported(handler: ThreadHandler) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        asked(handler, "stream", query="stop&fail")
    assert SEEN[-1][0] == "closed"


def test_a_query_that_is_no_text_is_refused(handler: ThreadHandler) -> None:
    """Django cannot make a request of it, so no middleware runs."""
    scope = http_scope("GET", "/thread", query_string=b"\xff")
    assert ask(handler, scope, [chunk(b"")]).status == 400
    assert SEEN == [("closed", SEEN[0][1])]
