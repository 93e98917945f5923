"""The log of messages: bounded, short-lived, sealed, and alike in both forms."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from django.utils import timezone

from mcp_bridge.models import SessionMessage
from mcp_bridge.sessions import message_log
from mcp_bridge.sessions.message_log import (
    KEPT_FOR,
    DatabaseLog,
    LogEntry,
    MemoryLog,
    MessageLog,
    append_row,
    open_log,
    read_rows,
    take_rows,
)
from tests.support.asgi import run

pytestmark = [pytest.mark.once, pytest.mark.django_db]
T = TypeVar("T")


class Log:
    """A log whose calls are finished at once."""

    def __init__(self, form: MessageLog) -> None:
        self.form = form

    def append(self, channel: str, number: int, content: bytes, **kept: float) -> bool:
        return finished(self.form.append(channel, number, content, **kept))

    def read(self, channels: list[str], *after: int) -> list[LogEntry]:
        return finished(self.form.read(channels, *after))

    def take(self, channels: list[str]) -> list[LogEntry]:
        return finished(self.form.take(channels))


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of something that waits for nothing, without an event loop.

    In a loop, Django refuses queries.
    """
    with pytest.raises(StopIteration) as stopped:
        work.send(None)
    found: T = stopped.value.value
    return found


async def at_once(work: Callable[..., T], *arguments: Any) -> T:
    """Instead of the hop to a thread, which would not see the test's transaction."""
    return work(*arguments)


@pytest.fixture(params=[MemoryLog, DatabaseLog])
def log(request: Any, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(message_log, "in_database", at_once)
    return Log(request.param())


def contents(log: Log, *channels: str, **after: int) -> list[bytes]:
    return [entry.content for entry in log.read([*channels], *after.values())]


def test_a_channel_is_read_from_a_number_on(log: Log) -> None:
    for number, content in enumerate([b"zero", b"one", b"two"]):
        assert log.append("s/a", number, content)
    assert log.append("s/b", 1, b"other")
    assert contents(log, "s/a") == [b"one", b"two"]
    assert contents(log, "s/a", after=-1) == [b"zero", b"one", b"two"]
    assert contents(log, "s/a", after=2) == contents(log, "s/c") == []
    assert sorted(contents(log, "s/a", "s/b", after=0)) == [b"one", b"other", b"two"]
    (entry,) = log.read(["s/b"])
    assert (entry.channel, entry.number) == ("s/b", 1)


def test_what_is_taken_is_gone(log: Log) -> None:
    for number in (1, 2):
        log.append("s/a", number, b"x")
    assert len(log.take(["s/a", "s/b"])) == 2
    assert log.take(["s/a"]) == [] and contents(log, "s/a", after=-1) == []


def test_channels_and_messages_are_bounded(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_log, "MAX_MESSAGES", 2)
    assert [log.append("s/a", n, b"abc") for n in (1, 2, 3)] == [True, True, False]
    assert log.append("s/b", 1, b""), "other channels have room"


def test_messages_expire(log: Log) -> None:
    log.append("s/a", 1, b"old", kept_for=0.0)
    assert contents(log, "s/a") == []
    log.append("s/b", 1, b"new")
    assert contents(log, "s/a", "s/b") == [b"new"]


def test_what_is_kept_for_long_outlives_what_follows_it(log: Log) -> None:
    """The first event of a response says what it is about, also after a long pause."""
    log.append("s/a", 0, b"about", kept_for=3600.0)
    log.append("s/a", 1, b"event", kept_for=0.0)
    assert contents(log, "s/a", after=-1)[0] == b"about"


def test_a_message_has_a_largest_size(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_log, "MAX_MESSAGE", 3)
    assert not log.append("s/a", 1, b"four")
    assert log.append("s/a", 1, b"abc") and contents(log, "s/a") == [b"abc"]


def test_a_message_is_kept_for_minutes_unless_said_otherwise(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append("s/a", 1, b"short")
    log.append("s/b", 1, b"long", kept_for=3 * KEPT_FOR)
    started, clock = timezone.now(), time.monotonic()
    for times, expected in ((0.9, [b"short", b"long"]), (1.1, [b"long"]), (3.1, [])):
        late = times * KEPT_FOR
        now = started + timedelta(seconds=late)
        with monkeypatch.context() as later:
            later.setattr(timezone, "now", lambda now=now: now)
            later.setattr(time, "monotonic", lambda late=late: clock + late)
            assert contents(log, "s/a", "s/b") == expected


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel that was written to first goes first."""
    monkeypatch.setattr(message_log, "MAX_MEMORY", 5)
    log = MemoryLog()
    for channel, content in (("a", b"11"), ("b", b"22"), ("a", b"3"), ("c", b"44")):
        run(log.append(channel, 1, content))
    found = [entry.content for entry in run(log.read(["a", "b", "c"]))]
    assert found == [b"11", b"3", b"44"] and log.bytes == 5
    run(log.append("d", 1, b"", kept_for=-1))
    run(log.take(["a", "c"]))
    run(log.append("e", 1, b""))
    assert log.bytes == 0 and set(log.channels) == {"e"}


def test_a_large_message_takes_the_place_of_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(message_log, "MAX_MEMORY", 5)
    log = MemoryLog()
    for channel, content in (("a", b"11"), ("b", b"22"), ("c", b"33333")):
        run(log.append(channel, 1, content))
    assert log.bytes == 5 and set(log.channels) == {"c"}


def test_rows_are_sealed_for_their_channel(settings: Any) -> None:
    append_row("s/a", 1, b"a secret result", 60)
    row = SessionMessage.objects.get()
    assert b"secret" not in bytes(row.content_encrypted)
    assert [entry.content for entry in read_rows(["s/a"], 0)] == [b"a secret result"]
    SessionMessage.objects.update(channel="s/b")
    assert read_rows(["s/b"], 0) == [] == take_rows(["s/b"])


def test_rows_are_sealed_for_one_channel_of_a_session() -> None:
    """Also where only the end of the channel's name differs."""
    session = "0" * 32
    append_row(f"{session}/in", 1, b"x", 60)
    SessionMessage.objects.update(channel=f"{session}/out")
    assert read_rows([f"{session}/out"], 0) == []


def test_of_two_that_take_a_row_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    append_row("s/a", 1, b"x", 60)
    read = read_rows(["s/a"], -1)
    monkeypatch.setattr(message_log, "read_rows", lambda *_: read)
    assert [len(take_rows(["s/a"])) for _ in range(2)] == [1, 0]


def test_an_expired_row_is_not_read() -> None:
    append_row("s/a", 1, b"x", 60)
    SessionMessage.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert read_rows(["s/a"], 0) == []


@pytest.mark.parametrize(
    ("vendor", "workers", "shared"),
    [("sqlite", 1, False), ("sqlite", 2, True), ("postgresql", 1, True)],
)
def test_only_a_process_that_is_alone_needs_no_rows(
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    vendor: str,
    workers: int,
    shared: bool,
) -> None:
    settings.WORKERS = workers

    class Connection:
        pass

    connection = Connection()
    connection.vendor = vendor  # type: ignore[attr-defined]
    monkeypatch.setattr(message_log, "connection", connection)
    assert open_log().shared is shared


def test_an_unreadable_row_hides_no_other() -> None:
    for number in (1, 2):
        append_row("s/a", number, b"%d" % number, 60)
    SessionMessage.objects.filter(number=1).update(content_encrypted=b"broken")
    assert [entry.content for entry in read_rows(["s/a"], 0)] == [b"2"]


def test_rows_are_read_in_the_order_of_their_numbers() -> None:
    for number in (2, 1, 1):
        append_row("s/a", number, b"%d" % number, 60)
    assert [entry.number for entry in read_rows(["s/a"], 0)] == [1, 1, 2]
