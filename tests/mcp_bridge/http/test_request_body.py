"""Bodies that are too large, too slow, or never complete."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import override_settings

from accounts.http.responses import SCOPE_KEY, RefusedBody, error_body
from mcp_bridge.http.request_body import (
    BodyLimitMiddleware,
    BodyTimeout,
    BodyTooLarge,
    Disconnected,
    IncomingBody,
    LimitedReceive,
)
from tests.support.asgi import GONE, Client, ask, chunk, http_scope, run

pytestmark = pytest.mark.once
START = {"type": "http.response.start", "status": 200, "headers": []}


class Echo:
    """Reads the whole body and repeats it."""

    def __init__(self, begin: bool = False) -> None:
        self.begin, self.called = begin, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.called = True
        if self.begin:
            await send(START)
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event["more_body"]
        if not self.begin:
            await send(START)
        await send({"type": "http.response.body", "body": body})
        if self.begin:
            return
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.001)


async def ten(scope: Any) -> int:
    return 10


def limited(
    events: list[Any],
    declared: str | None = None,
    app: Any = None,
    wait: float = 5,
    accept: str = "*/*",
) -> Client:
    """A request to an application that takes ten bytes."""
    headers = {} if declared is None else {"content-length": declared}
    headers |= {"accept": accept}
    with override_settings(BODY_TIMEOUT=wait):
        middleware = BodyLimitMiddleware(app or Echo(), ten)
        return ask(middleware, http_scope(headers=headers), events)


@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413)])
def test_a_declared_size_is_refused_before_the_app_runs(size: int, status: int) -> None:
    app = Echo()
    reply = limited([chunk(b"x" * size)], str(size), app)
    assert reply.status == status and app.called is (status == 200)


@pytest.mark.parametrize("declared", [None, "x", "-5"])
@pytest.mark.parametrize(("last", "status"), [(b"56789", 200), (b"56789x", 413)])
def test_other_bodies_are_counted_while_they_are_read(
    declared: str | None, last: bytes, status: int
) -> None:
    reply = limited([chunk(b"01234", more=True), chunk(last)], declared)
    assert reply.status == status
    if status == 200:
        assert reply.body == b"0123456789"


def test_a_refusal_of_a_large_body_closes_the_connection() -> None:
    """The rest of the body is unread."""
    for reply in (limited([chunk(b"x" * 11)]), limited([], "11")):
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        text = "The body is larger than 10 bytes."
        assert reply.json == error_body("invalid_request", text)


class Pages:
    """Reads the body of a request, or notes why it was refused."""

    refused: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.refused = scope.get(SCOPE_KEY)
        while (await receive())["more_body"]:
            pass
        with pytest.raises(TimeoutError):  # Django listens for a disconnect here.
            await asyncio.wait_for(receive(), 0.001)
        await send(START)
        await send({"type": "http.response.body", "body": b"page"})


@pytest.mark.parametrize(
    ("events", "declared", "status"),
    [([], "11", 413), ([chunk(b"x" * 11)], None, 413), ([], None, 408)],
)
def test_a_browser_gets_a_page_of_the_application(
    events: list[Any], declared: str | None, status: int
) -> None:
    """The application gets no body, so that it answers at once."""
    app = Pages()
    reply = limited(events, declared, app, 0.05, accept="text/html,*/*;q=0.8")
    assert app.refused == RefusedBody(status, 10) and reply.body == b"page"


@pytest.mark.parametrize("events", [[], [chunk(b"a", more=True)]])
def test_a_slow_body_is_408(events: list[Any]) -> None:
    reply = limited(events, wait=0.01)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert reply.json["error"] == "request_timeout"


def test_the_time_is_limited_in_total_not_for_each_part() -> None:
    """A client that sends a byte now and then gets no more time."""

    async def drip() -> None:
        async def receive() -> Any:
            await asyncio.sleep(0.01)
            return chunk(b"", more=True)

        client = Client()
        app = BodyLimitMiddleware(Echo(), ten)
        await app(http_scope(), receive, client.send)
        assert client.status == 408

    with override_settings(BODY_TIMEOUT=0.03):
        run(drip())


@pytest.mark.parametrize("events", [[chunk(b"x" * 11)], []])
def test_a_response_that_has_begun_is_not_replaced(events: list[Any]) -> None:
    reply = limited(events, app=Echo(begin=True), wait=0.01)
    assert reply.sent == [START]


def test_after_the_body_there_is_no_time_limit() -> None:
    """A view may wait for the disconnect of its client as long as it likes."""
    assert limited([chunk(b"x")], wait=0.01).status == 200


@pytest.mark.parametrize("whole", [True, False])
def test_what_follows_a_body_is_passed_on(whole: bool) -> None:
    """Its end is the end of the limits, not of the events."""
    client = Client([chunk(b"x", more=not whole), GONE])

    async def story() -> None:
        received = LimitedReceive(client.receive, 10)
        await received()
        received.deadline = 0.0
        if whole:
            assert await received() == GONE
            return
        with pytest.raises(BodyTimeout):
            client.events.clear()
            await received()

    run(story())


# ---------------------------------------------------------------- IncomingBody


def body_of(*events: Any) -> IncomingBody:
    return IncomingBody(Client(list(events)).receive)


def test_a_buffered_body_arrives_without_waiting() -> None:
    body = body_of(chunk(b"a", more=True), chunk(b"b"))
    assert run(body.arrives(0)) and body.complete
    assert (body.content(), body.content(), body.size) == (b"ab", b"ab", 2)


@pytest.mark.parametrize("early", [b"", b"a", b"ab"])
def test_a_late_body_keeps_what_has_arrived(early: bytes) -> None:
    """The next read continues there."""

    async def story() -> None:
        rest = asyncio.Event()
        events = [chunk(early[n : n + 1], more=True) for n in range(len(early))]

        async def receive() -> Any:
            if events:
                return events.pop(0)
            await rest.wait()
            return chunk(b"c")

        body = IncomingBody(receive)
        assert not await body.arrives(0.01)
        assert (body.size, body.complete) == (len(early), False)
        asyncio.get_running_loop().call_later(0.01, rest.set)
        assert await body.arrives(5)
        assert body.content() == early + b"c"

    run(story())


def test_a_body_is_limited_to_its_maximum() -> None:
    with override_settings(MAX_BODY_SIZE=3):
        assert run(body_of(chunk(b"abc")).arrives(0))
        with pytest.raises(BodyTooLarge):
            run(body_of(chunk(b"ab", more=True), chunk(b"cd")).arrives(0))


def test_a_client_that_leaves_raises() -> None:
    with pytest.raises(Disconnected):
        run(body_of(chunk(b"a", more=True), GONE).arrives(0))


def test_each_later_part_is_reported_by_its_size() -> None:
    body, sizes = body_of(chunk(b"a", more=True), chunk(b"bcd")), list[int]()
    body.on_chunk = sizes.append
    run(body.arrives(0))
    assert sizes == [1, 3]


def test_a_report_may_refuse_the_rest() -> None:
    def refuse(_size: int) -> None:
        raise BodyTimeout

    body = body_of(chunk(b"a"))
    body.on_chunk = refuse
    with pytest.raises(BodyTimeout):
        run(body.arrives(0))
    assert not body.complete


def test_cancelling_the_wait_reaches_the_reader() -> None:
    async def story() -> None:
        seen = list[str]()

        async def receive() -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(IncomingBody(receive).arrives(5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]

    run(story())


def test_a_replay_gives_the_body_once_then_the_later_events() -> None:
    async def story() -> None:
        later = {"type": "of a later release"}
        body = body_of(chunk(b"a", more=True), chunk(b"b"), later, GONE)
        await body.arrives(0)
        receive = body.replay()
        assert await receive() == chunk(b"ab")
        assert [await receive(), await receive()] == [later, GONE]

    run(story())
