"""Listens to what upstream servers say of their lists and resources.

One process listens to a server (a lease in its status). A changed list leads to a
discovery: what clients see changes when somebody accepts it. An updated resource is
counted in its row, from which every worker tells the clients that subscribed to it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone
from mcp.shared.exceptions import MCPError

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.db import in_database
from mcp_bridge.models import (
    SERVED_STATES,
    Primitive,
    PrimitiveKind,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import exchange
from mcp_bridge.upstreams.discovery import as_upstream
from mcp_bridge.upstreams.problems import UpstreamProblem

logger = logging.getLogger(__name__)

EVERY = 20.0
"""Seconds between two looks for servers to listen to."""
LEASE = timedelta(seconds=4 * EVERY)
QUIET = 60.0
"""Seconds between two discoveries that notices of one server cause."""
COUNT_EVERY = 5.0
"""Seconds between two counts of updates: each makes every worker read its rules."""
SETTLE = 1.0
"""Seconds to wait for further notices."""
AGAIN, UNSUPPORTED = 60.0, 3600.0
"""Seconds until the next try after a stream ended, or is not offered."""
MAX_SERVERS = 200
MAX_RESOURCES = 1000
"""Resources of one server whose updates are relayed, the first by name."""

LIST_CHANGES = frozenset(
    f"notifications/{kind}/list_changed" for kind in ("tools", "resources", "prompts")
)
WANTED = dict.fromkeys(
    ("toolsListChanged", "resourcesListChanged", "promptsListChanged"), True
)

UPDATED = "notifications/resources/updated"

Discover = Callable[[UpstreamServer], Awaitable[None]]


class Notices(exchange.Nobody):
    """The downstream of a stream of notices; `resources` are those to hear of."""

    session = "listening"

    def __init__(self, resources: Iterable[str] = ()) -> None:
        self.changed, self.counted = asyncio.Event(), asyncio.Event()
        self.resources = frozenset(resources)
        self.updated: set[str] = set()
        """URIs of resources that were updated since the last count."""

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Remember what changed."""
        if method in LIST_CHANGES:
            self.changed.set()
            return
        uri = params.get("uri")
        if method == UPDATED and isinstance(uri, str) and uri in self.resources:
            self.updated.add(uri)
            self.counted.set()


@dataclass(frozen=True)
class Heard:
    """A server to listen to, and the URIs of the resources that clients can read."""

    upstream: Upstream
    resources: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What a stream depends on."""
        server = self.upstream
        version = server.credential.version if server.credential else 0
        return server.pk, server.row.url, version, self.resources

    @property
    def wanted(self) -> dict[str, Any]:
        """The filter of subscriptions/listen."""
        more = {"resourceSubscriptions": list(self.resources)}
        return {**WANTED, **(more if self.resources else {})}


class Listener:
    """Listens to one server until it is cancelled."""

    def __init__(self, heard: Heard, discover: Discover) -> None:
        self.upstream, self.wanted = heard.upstream, heard.wanted
        self.discover = discover
        self.notices = Notices(heard.resources)
        self.discovered_at = -QUIET

    async def run(self) -> None:
        """Listen, discover and count, until cancelled."""
        await asyncio.gather(
            self.keep_listening(), self.keep_discovering(), self.keep_counting()
        )

    async def keep_listening(self) -> None:
        """Open the stream again whenever it ends."""
        while True:
            wait = AGAIN
            try:
                await exchange.listen(self.upstream, self.wanted, self.notices)
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

    async def keep_counting(self) -> None:
        """Count updates of resources, several at once, and not too often."""
        while True:
            await self.notices.counted.wait()
            await asyncio.sleep(SETTLE)
            self.notices.counted.clear()
            uris, self.notices.updated = self.notices.updated, set()
            try:
                await in_database(
                    Primitive.objects.announce, self.upstream.pk, sorted(uris)
                )
            except DatabaseError as error:
                logger.info("Updates of %s are lost: %s", self.upstream.name, error)
            await asyncio.sleep(max(0.0, COUNT_EVERY - SETTLE))


class Listeners:
    """The listeners of this process, by all that their streams depend on."""

    def __init__(self, discover: Discover) -> None:
        self.discover = discover
        self.leases: dict[int, datetime] = {}
        self.tasks: dict[tuple[Any, ...], asyncio.Task[None]] = {}

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
        self.leases = {heard.upstream.pk: until for heard, until in found}
        wanted = {heard.key: heard for heard, _until in found}
        ended = [key for key, task in self.tasks.items() if task.done()]
        await self.stop([*ended, *(self.tasks.keys() - wanted.keys() - set(ended))])
        for key in wanted.keys() - self.tasks.keys():
            listener = Listener(wanted[key], self.discover)
            self.tasks[key] = asyncio.create_task(listener.run())

    async def stop(self, keys: list[tuple[Any, ...]]) -> None:
        """Stop listening."""
        tasks = [self.tasks.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task


def resources_of(server: UpstreamServer) -> tuple[str, ...]:
    """The URIs, at the server, of the resources that clients can read."""
    rows = server.primitives.filter(
        kind=PrimitiveKind.RESOURCE, state__in=SERVED_STATES, enabled=True
    )
    uris = rows.order_by("upstream_name").values_list("upstream_name", flat=True)
    return tuple(uris[:MAX_RESOURCES])


def take_leases(held: Mapping[int, datetime]) -> list[tuple[Heard, datetime]]:
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
            upstream = as_upstream(server, shared.get(server.pk))
            found.append((Heard(upstream, resources_of(server)), until))
    return found
