"""Messages of sessions that another worker may need, for a short time.

A channel names a session and a purpose. With one process on SQLite they stay in its
memory; otherwise they are rows, sealed, that every worker reads. Channels are bounded:
what is over a limit is lost, and a client that resumes gets an error instead.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple, Protocol

from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts.crypto.encrypted_columns import SESSION_MESSAGES
from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from mcp_bridge.db import in_database
from mcp_bridge.models import SessionMessage

PURPOSE = SESSION_MESSAGES.purpose
KEPT_FOR = 300.0
"""Seconds for which a message can be read."""
MAX_MESSAGES = 500
"""Messages in one channel."""
MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of one message."""
MAX_MEMORY = 64 * 1024 * 1024
"""Bytes of all messages in the memory of a process; the oldest channels go first."""


class LogEntry(NamedTuple):
    """A message of a channel."""

    id: int
    """Unique in the log."""
    channel: str
    number: int
    content: bytes


class MessageLog(Protocol):
    """Appends and reads messages by channel."""

    shared: bool
    """Whether other workers read it."""

    async def append(
        self, channel: str, number: int, content: bytes, kept_for: float = KEPT_FOR
    ) -> bool:
        """Add a message; False if the channel or the message is too large."""

    async def read(self, channels: Collection[str], after: int = 0) -> list[LogEntry]:
        """Messages of these channels with a larger number, in order."""

    async def take(self, channels: Collection[str]) -> list[LogEntry]:
        """Remove and return the messages; each goes to one caller only."""


class MemoryLog:
    """The messages of the only process."""

    shared = False

    def __init__(self) -> None:
        self.channels: OrderedDict[str, tuple[float, list[LogEntry]]] = OrderedDict()
        """Channel -> when it expires, and its messages."""
        self.bytes = self.last_id = 0

    async def append(
        self, channel: str, number: int, content: bytes, kept_for: float = KEPT_FOR
    ) -> bool:
        """See MessageLog."""
        self.forget_expired()
        end, entries = self.channels.pop(channel, (0.0, []))
        # The first event of a response is kept longer than those that follow it.
        self.channels[channel] = max(end, time.monotonic() + kept_for), entries
        if len(entries) >= MAX_MESSAGES or len(content) > MAX_MESSAGE:
            return False
        self.last_id += 1
        entries.append(LogEntry(self.last_id, channel, number, content))
        self.bytes += len(content)
        while self.bytes > MAX_MEMORY:
            self.forget(next(iter(self.channels)))
        return True

    async def read(self, channels: Collection[str], after: int = 0) -> list[LogEntry]:
        """See MessageLog."""
        found = [self.channels[name] for name in channels if name in self.channels]
        now = time.monotonic()
        return [e for end, all_ in found if end > now for e in all_ if e.number > after]

    async def take(self, channels: Collection[str]) -> list[LogEntry]:
        """See MessageLog."""
        found = await self.read(channels, -1)
        for channel in channels:
            self.forget(channel)
        return found

    def forget_expired(self) -> None:
        """Remove channels whose time is over, from the one written first on."""
        now = time.monotonic()
        while self.channels and next(iter(self.channels.values()))[0] <= now:
            self.forget(next(iter(self.channels)))

    def forget(self, channel: str) -> None:
        """Remove a channel."""
        _, entries = self.channels.pop(channel, (0.0, []))
        self.bytes -= sum(len(entry.content) for entry in entries)


class DatabaseLog:
    """The messages as rows."""

    shared = True

    async def append(
        self, channel: str, number: int, content: bytes, kept_for: float = KEPT_FOR
    ) -> bool:
        """See MessageLog. Database errors propagate."""
        if len(content) > MAX_MESSAGE:
            return False
        return await in_database(append_row, channel, number, content, kept_for)

    async def read(self, channels: Collection[str], after: int = 0) -> list[LogEntry]:
        """See MessageLog. Database errors propagate."""
        return await in_database(read_rows, list(channels), after)

    async def take(self, channels: Collection[str]) -> list[LogEntry]:
        """See MessageLog. Database errors propagate."""
        return await in_database(take_rows, list(channels))


def append_row(channel: str, number: int, content: bytes, kept_for: float) -> bool:
    """Add a row; False if the channel is full."""
    rows = SessionMessage.objects.filter(channel=channel)
    if rows.count() >= MAX_MESSAGES:
        return False
    SessionMessage.objects.create(
        channel=channel,
        number=number,
        content_encrypted=seal(PURPOSE, content, channel.encode()),
        expires_at=timezone.now() + timedelta(seconds=kept_for),
    )
    return True


def read_rows(channels: list[str], after: int) -> list[LogEntry]:
    """The rows that have not expired and can be decrypted."""
    rows = SessionMessage.objects.filter(channel__in=channels, number__gt=after)
    found = []
    for row in rows.filter(expires_at__gt=timezone.now()).order_by("number", "pk"):
        sealed, about = bytes(row.content_encrypted), row.channel.encode()
        try:
            content = unseal(PURPOSE, sealed, about)
        except KeyUnreadable:
            continue
        found.append(LogEntry(row.pk, row.channel, row.number, content))
    return found


def take_rows(channels: list[str]) -> list[LogEntry]:
    """Read and delete; of two callers, the one that deletes a row gets it."""
    found = read_rows(channels, -1)
    rows = SessionMessage.objects.all()
    return [entry for entry in found if rows.filter(pk=entry.id).delete()[0]]


def open_log() -> MessageLog:
    """The log of this deployment; SQLite with one worker is one process."""
    alone = connection.vendor == "sqlite" and settings.WORKERS == 1
    return MemoryLog() if alone else DatabaseLog()
