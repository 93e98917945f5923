"""Listens to what upstream servers say of their lists; a change leads to a discovery.

One process listens to a server (a lease in its status). A notice is only a reason to
look: what clients see changes when somebody accepts it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone
from mcp.shared.exceptions import MCPError

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.db import in_database
from mcp_bridge.models import UpstreamCredential, UpstreamServer, UpstreamStatus
from mcp_bridge.upstreams import exchange
from mcp_bridge.upstreams.discovery import as_upstream
from mcp_bridge.upstreams.problems import UpstreamProblem

logger = logging.getLogger(__name__)

EVERY = 20.0
"""Seconds between two looks for servers to listen to."""
LEASE = timedelta(seconds=4 * EVERY)
QUIET = 60.0
"""Seconds between two discoveries that notices of one server cause."""
SETTLE = 1.0
"""Seconds to wait for further notices."""
AGAIN, UNSUPPORTED = 60.0, 3600.0
"""Seconds until the next try after a stream ended, or is not offered."""
MAX_SERVERS = 200

LIST_CHANGES = frozenset(
    f"notifications/{kind}/list_changed" for kind in ("tools", "resources", "prompts")
)
WANTED = dict.fromkeys(
    ("toolsListChanged", "resourcesListChanged", "promptsListChanged"), True
)

Discover = Callable[[UpstreamServer], Awaitable[None]]


class Notices(exchange.Nobody):
    """The downstream of a stream of notices."""

    session = "listening"

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Remember that a list changed."""
        if method in LIST_CHANGES:
            self.changed.set()


class Listener:
    """Listens to one server until it is cancelled."""

    def __init__(self, upstream: Upstream, discover: Discover) -> None:
        self.upstream, self.discover = upstream, discover
        self.notices = Notices()
        self.discovered_at = -QUIET

    async def run(self) -> None:
        """Listen and discover, until cancelled."""
        await asyncio.gather(self.keep_listening(), self.keep_discovering())

    async def keep_listening(self) -> None:
        """Open the stream again whenever it ends."""
        while True:
            wait = AGAIN
            try:
                await exchange.listen(self.upstream, WANTED, self.notices)
            except MCPError:
                wait = UNSUPPORTED
            except UpstreamProblem as problem:
                wait = UNSUPPORTED if problem.code == "status" else AGAIN
                logger.debug("Upstream %s: %s", self.upstream.name, problem)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311

    async def keep_discovering(self) -> None:
        """Discover after notices, once for several, and not more often than allowed."""
        while True:
            await self.notices.changed.wait()
            quiet = self.discovered_at + QUIET - time.monotonic()
            await asyncio.sleep(max(SETTLE, quiet))
            self.notices.changed.clear()
            self.discovered_at = time.monotonic()
            await self.discover(self.upstream.row)


class Listeners:
    """The listeners of this process, by server, URL and version of the credential."""

    def __init__(self, discover: Discover) -> None:
        self.discover = discover
        self.leases: dict[int, datetime] = {}
        self.tasks: dict[tuple[int, str, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Take leases and listen, until cancelled."""
        try:
            while True:
                try:
                    await self.renew()
                except DatabaseError as error:
                    logger.info("Upstream servers are not listened to: %s", error)
                await asyncio.sleep(EVERY * random.uniform(0.8, 1.2))  # noqa: S311
        finally:
            await self.stop(list(self.tasks))

    async def renew(self) -> None:
        """Listen to the servers whose leases this process holds, and to no others."""
        found = await in_database(take_leases, self.leases)
        self.leases = {upstream.pk: until for upstream, until in found}
        wanted = {key_of(upstream): upstream for upstream, _until in found}
        ended = [key for key, task in self.tasks.items() if task.done()]
        await self.stop([*ended, *(self.tasks.keys() - wanted.keys() - set(ended))])
        for key in wanted.keys() - self.tasks.keys():
            listener = Listener(wanted[key], self.discover)
            self.tasks[key] = asyncio.create_task(listener.run())

    async def stop(self, keys: list[tuple[int, str, int]]) -> None:
        """Stop listening."""
        tasks = [self.tasks.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task


def key_of(upstream: Upstream) -> tuple[int, str, int]:
    """What a stream depends on."""
    credential = upstream.credential
    return upstream.pk, upstream.row.url, credential.version if credential else 0


def take_leases(held: Mapping[int, datetime]) -> list[tuple[Upstream, datetime]]:
    """Take or renew the leases of enabled servers that were discovered once."""
    now = timezone.now()
    until = now + LEASE
    shared = {
        row.upstream_id: row for row in UpstreamCredential.objects.filter(user=None)
    }
    servers = UpstreamServer.objects.filter(enabled=True, status__isnull=False)
    found = []
    for server in servers.order_by("pk")[:MAX_SERVERS]:
        free = Q(listening_until=None) | Q(listening_until__lt=now)
        if server.pk in held:
            free |= Q(listening_until=held[server.pk])
        rows = UpstreamStatus.objects.filter(free, upstream=server)
        if rows.update(listening_until=until):
            found.append((as_upstream(server, shared.get(server.pk)), until))
    return found
