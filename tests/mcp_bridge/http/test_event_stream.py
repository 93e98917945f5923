"""Streams that stay open: what is pushed, pings, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from mcp_bridge.http import event_stream
from mcp_bridge.http.event_stream import (
    MOST_WAITING,
    PING,
    SILENCE,
    EventStream,
    forget_headers,
    stream_head,
)
from mcp_bridge.http.headers import HeaderPairs, header
from tests.support.asgi import GONE, Client, chunk, run
from tests.support.mcp_in_process import until

pytestmark = pytest.mark.once
HEAD = stream_head()


class Slow(Client):
    """A client that takes nothing until `takes` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = asyncio.Event()

    async def send(self, event: Any) -> None:
        await self.takes.wait()
        await super().send(event)


async def served(
    stream: EventStream,
    client: Client,
    story: Callable[[], Awaitable[object]],
    first: bytes = b"",
) -> bool:
    """Serve while the story lasts; whether the server ended the stream."""
    work = stream.serve(client.receive, client.send, HEAD, first)
    task = asyncio.create_task(work)
    await story()
    ended = await asyncio.wait_for(task, 5)
    assert stream not in SILENCE.members
    assert stream.sending is None or stream.sending.cancelled()
    return ended


def test_events_are_sent_in_their_order_after_the_first() -> None:
    """Also one that was pushed before the stream began."""

    async def story() -> None:
        stream, client = EventStream(), Client([chunk(b"")])
        assert stream.push(b"early") and stream.sending is None

        async def pushes() -> None:
            await until(lambda: client.body == b"firstearly")
            for event in (b"1", b"2", b"3"):
                stream.push(event)
            await until(lambda: client.body.endswith(b"123"))
            stream.push(b"4")
            stream.close()
            assert not stream.push(b"late")

        assert await served(stream, client, pushes, b"first")
        assert client.sent[0] == HEAD and client.body == b"firstearly1234"

    run(story())


def test_a_stream_that_was_closed_before_ends_at_once() -> None:
    async def story() -> None:
        stream, client = EventStream(), Client()
        stream.push(b"1")
        stream.close()
        assert await served(stream, client, lambda: asyncio.sleep(0))
        assert client.body == b"1"

    run(story())


def test_a_client_that_leaves_ends_its_stream() -> None:
    """Also while an event waits for it."""

    async def story() -> None:
        stream, client, left = EventStream(), Slow(), asyncio.Event()
        client.takes.set()

        async def receive() -> Any:
            await left.wait()
            return GONE

        async def leaves() -> None:
            await until(lambda: client.sent)
            client.takes.clear()
            stream.push(b"1")
            await asyncio.sleep(0)
            left.set()

        client.receive = receive  # type: ignore[method-assign]
        assert await served(stream, client, leaves) is False
        assert client.body == b""

    run(story())


def test_a_client_that_does_not_read_loses_events_not_memory() -> None:
    async def story() -> None:
        stream, client = EventStream(), Slow()

        async def pushes() -> None:
            await asyncio.sleep(0)
            client.takes.set()
            await until(lambda: client.sent)
            client.takes.clear()
            pushed = [stream.push(b"x") for _ in range(MOST_WAITING + 50)]
            assert pushed == [True] * MOST_WAITING + [False] * 50
            stream.close()
            client.takes.set()

        assert await served(stream, client, pushes)
        assert client.body == b"x" * MOST_WAITING

    run(story())


def test_what_sending_raises_ends_the_stream() -> None:
    async def story() -> None:
        stream, client = EventStream(), Client()

        async def pushes() -> None:
            await until(lambda: client.sent)

            async def broken(event: Any) -> None:
                raise KeyError("broken")

            stream.send = broken
            stream.push(b"1")

        with pytest.raises(KeyError):
            await served(stream, client, pushes)
        assert stream not in SILENCE.members

    run(story())


def test_a_cancellation_from_outside_is_no_end_of_the_server() -> None:
    async def story() -> None:
        stream, client = EventStream(), Client()
        task = asyncio.create_task(stream.serve(client.receive, client.send, HEAD))
        await until(lambda: client.sent)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream not in SILENCE.members

    run(story())


def test_silent_streams_get_pings_from_one_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream whose client does not read gets one that waits, not more."""
    monkeypatch.setattr(event_stream, "PING_EVERY", 0.02)

    async def story() -> None:
        pairs = [(EventStream(), Client()), (EventStream(), Client())]
        slow, blocked = EventStream(), Slow()
        blocked.takes.set()
        tasks = [
            asyncio.create_task(stream.serve(client.receive, client.send, HEAD))
            for stream, client in (*pairs, (slow, blocked))
        ]
        await until(lambda: blocked.sent)
        blocked.takes.clear()
        before = len(asyncio.all_tasks())
        await until(lambda: all(c.body.count(PING) > 2 for _, c in pairs))
        assert len(slow.waiting) == 0 and slow.sending is not None
        assert len(asyncio.all_tasks()) <= before + 2
        for stream, _ in (*pairs, (slow, blocked)):
            stream.close()
        blocked.takes.set()
        await asyncio.gather(*tasks)

    run(story())


def test_headers_are_freed_where_the_server_keeps_them() -> None:
    pairs = HeaderPairs([(b"authorization", b"Bearer x")])
    scope = {"headers": pairs}
    forget_headers(scope)
    assert header(scope, b"authorization") is None and pairs == []
    forget_headers({"headers": [(b"a", b"b")]})


def test_a_stream_that_ended_leaves_its_task_uncancelled() -> None:
    """What the server does next with the task must not fail."""

    async def story() -> None:
        stream, client = EventStream(), Client()
        stream.close()
        assert await stream.serve(client.receive, client.send, HEAD)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    run(story())


def test_events_are_sent_in_the_context_of_their_stream() -> None:
    """Not in that of the message that pushed them: a rule of another caller."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    async def story() -> None:
        stream, client = EventStream(), Client()

        async def send(event: Any) -> None:
            seen.append(whose.get())

        async def serve() -> None:
            whose.set("mine")
            await stream.serve(client.receive, send, HEAD)

        task = asyncio.create_task(serve())
        await until(lambda: seen)
        whose.set("another")
        stream.push(b"1")
        await until(lambda: len(seen) == 2)
        stream.close()
        await task

    run(story())
    assert seen == ["mine", "mine"]


def test_a_stream_with_events_gets_no_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PING_EVERY", 10.0)
    assert SILENCE.interval == 1.0
    monkeypatch.setattr(event_stream, "PING_EVERY", 2.0)
    assert SILENCE.interval == 0.5

    async def story() -> None:
        stream, client = EventStream(), Client()
        task = asyncio.create_task(stream.serve(client.receive, client.send, HEAD))
        await until(lambda: client.sent)
        stream.sent_at -= 3.0
        stream.push(b"1")
        await until(lambda: client.body == b"1")
        await SILENCE.look()
        await asyncio.sleep(0)
        assert stream.waiting == [] and client.body == b"1"
        stream.sent_at -= 3.0
        await SILENCE.look()
        await until(lambda: client.body == b"1" + PING)
        stream.close()
        await task

    run(story())


def test_a_stream_that_is_being_sent_gets_no_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "PING_EVERY", 2.0)

    async def story() -> None:
        stream, client = EventStream(), Slow()
        client.takes.set()
        task = asyncio.create_task(stream.serve(client.receive, client.send, HEAD))
        await until(lambda: client.sent)
        client.takes.clear()
        stream.push(b"1")
        await asyncio.sleep(0)
        stream.sent_at -= 3.0
        for _ in range(3):
            await SILENCE.look()
        assert stream.waiting == []
        client.takes.set()
        stream.close()
        await task
        assert client.body == b"1"

    run(story())


def test_nothing_keeps_or_changes_a_stream_on_its_way() -> None:
    """A proxy that compressed it would hold events back."""
    headers = dict(stream_head((b"mcp-session-id", b"s"))["headers"])
    assert headers == {
        b"content-type": b"text/event-stream",
        b"cache-control": b"no-cache, no-transform",
        b"x-accel-buffering": b"no",
        b"mcp-session-id": b"s",
    }


def test_one_task_sends_all_that_is_pushed() -> None:
    """Two could send out of order."""
    client, stream = Slow(), EventStream()

    async def story() -> None:
        client.takes.set()
        await until(lambda: client.sent)
        client.takes.clear()
        for number in range(3):
            stream.push(b"%d" % number)
            await asyncio.sleep(0)
        first = stream.sending
        stream.push(b"3")
        assert first is not None and stream.sending is first
        client.takes.set()
        await until(lambda: len(client.sent) == 5)
        stream.close()

    assert run(served(stream, client, story))
    assert [event["body"] for event in client.sent[1:]] == [b"0", b"1", b"2", b"3"]
