"""Discovery: what an upstream server says of itself, and everything it offers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db.models import Q
from django.utils import timezone
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, SERVER_INFO_META_KEY

from accounts.http import outbound_calls
from accounts.parsing.text import one_line
from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import (
    NewDefinitions,
    Offer,
    Primitive,
    PrimitiveKind,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import exchange
from mcp_bridge.upstreams.definitions import offer_of
from mcp_bridge.upstreams.http_client import close_client_of
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem

MAX_PAGES = 100
MAX_ITEMS = 2_000
SECONDS = 30.0
"""Seconds for one discovery."""
LEASE = timedelta(seconds=2 * SECONDS)

Json = dict[str, Any]
LISTS = (
    ("tools", PrimitiveKind.TOOL, "tools/list", "tools"),
    ("resources", PrimitiveKind.RESOURCE, "resources/list", "resources"),
    (
        "resources",
        PrimitiveKind.RESOURCE_TEMPLATE,
        "resources/templates/list",
        "resourceTemplates",
    ),
    ("prompts", PrimitiveKind.PROMPT, "prompts/list", "prompts"),
)
"""Capability, kind, method, and the member of the result."""


@dataclass(frozen=True)
class Found:
    """What an upstream server said of itself, and its definitions."""

    server_name: str
    server_version: str
    protocol: str
    instructions: str
    offers: tuple[Offer, ...]
    latency_ms: float
    truncated: str
    """Why the lists were cut; empty if they are whole."""
    cut: frozenset[str] = frozenset()
    """The kinds whose lists were cut."""


class Explorer(exchange.Nobody):
    """The downstream of one discovery; `session` is not shared with calls."""

    def __init__(self) -> None:
        self.session = f"discovery {uuid4().hex}"


@dataclass(frozen=True)
class Discovery:
    """One discovery of one server."""

    upstream: Upstream
    explorer: Explorer

    async def ask(self, method: str, params: Json) -> Json:
        """The result of one request. Raises UpstreamProblem, MCPError."""
        return await exchange.request(
            self.upstream, method, params, downstream=self.explorer, seconds=SECONDS
        )

    async def about(self) -> tuple[str, Json]:
        """The protocol, and the result of `server/discover` or `initialize`."""
        protocol = await exchange.detect_again(self.upstream)
        if protocol == exchange.MODERN:
            return protocol, await self.ask("server/discover", {})
        await self.ask("ping", {})
        info = exchange.session_info(self.upstream, self.explorer)
        return str(info.get("protocolVersion", "")), dict(info)

    async def items(self, about: Json) -> tuple[list[tuple[str, Any]], dict[str, str]]:
        """(kind, item) of every list; kind -> why its list was cut.

        Raises as `ask` does.
        """
        found: list[tuple[str, Any]] = []
        cuts: dict[str, str] = {}
        capabilities = about.get("capabilities")
        for capability, kind, method, member in LISTS:
            if not isinstance(capabilities, dict) or capability not in capabilities:
                continue
            try:
                items, cut = await self.pages(method, member)
            except MCPError as error:
                if error.error.code != METHOD_NOT_FOUND:
                    raise
                continue
            if cut:
                cuts[str(kind)] = cut
            found += [(kind, item) for item in items]
        return found, cuts

    async def pages(self, method: str, member: str) -> tuple[list[Any], str]:
        """The items of all pages, and why reading stopped early."""
        items: list[Any] = []
        params: Json = {}
        seen: set[str] = set()
        for _page in range(MAX_PAGES):
            result = await self.ask(method, params)
            page = result.get(member)
            if not isinstance(page, list):
                text = f"The answer to {method} has no list of {member}."
                raise UpstreamProblem("invalid", text, Outcome.ERROR)
            items += page
            if len(items) > MAX_ITEMS:
                text = f"{method} has more than {MAX_ITEMS} entries."
                return items[:MAX_ITEMS], text
            cursor = result.get("nextCursor")
            if cursor is None:
                return items, ""
            if not isinstance(cursor, str) or cursor in seen:
                return items, f"{method} repeats a cursor."
            seen.add(cursor)
            params = {"cursor": cursor}
        return items, f"{method} has more than {MAX_PAGES} pages."


async def explore(upstream: Upstream) -> Found:
    """Detect the protocol and read all lists. Raises UpstreamProblem."""
    discovery = Discovery(upstream, Explorer())
    began = time.perf_counter()
    try:
        async with asyncio.timeout(SECONDS):
            protocol, about = await discovery.about()
            latency = (time.perf_counter() - began) * 1000
            items, cuts = await discovery.items(about)
    except TimeoutError as error:
        text = f"The upstream server {upstream.name} did not answer in {SECONDS} s."
        raise UpstreamProblem("timeout", text, Outcome.TIMED_OUT) from error
    except MCPError as error:
        detail = one_line(error.error.message, 200)
        text = f"The upstream server {upstream.name} answered with an error: {detail}"
        raise UpstreamProblem("error", text, Outcome.ERROR) from error
    finally:
        exchange.end_session(upstream, discovery.explorer)
    # A thread: checking hundreds of schemas takes seconds, and calls must not wait.
    offers = await asyncio.to_thread(checked_offers, upstream.row, items)
    return found(protocol, about, offers, latency, cuts)


def checked_offers(server: UpstreamServer, items: list[tuple[str, Any]]) -> list[Offer]:
    """The offers of what was listed, as (kind, item)."""
    return [offer_of(server, kind, item) for kind, item in items]


def found(
    protocol: str,
    about: Json,
    offers: list[Offer],
    latency: float,
    cuts: dict[str, str],
) -> Found:
    """Found, of the result of `server/discover` or `initialize`."""
    info, meta = about.get("serverInfo"), about.get("_meta")
    if not isinstance(info, dict) and isinstance(meta, dict):
        info = meta.get(SERVER_INFO_META_KEY)
    info = info if isinstance(info, dict) else {}
    return Found(
        server_name=one_line(str(info.get("title") or info.get("name") or "")),
        server_version=one_line(str(info.get("version") or ""), 64),
        protocol=one_line(protocol, 10),
        instructions=str(about.get("instructions") or "")[:10_000],
        offers=tuple(offers),
        latency_ms=round(latency, 1),
        truncated=next(iter(cuts.values()), ""),
        cut=frozenset(cuts),
    )


def as_upstream(
    server: UpstreamServer, credential: UpstreamCredential | None
) -> Upstream:
    """The server and its credential for requests; neither needs a saved row."""
    return Upstream(server.pk, server.name, server.enabled, server, credential)


def look(server: UpstreamServer, credential: UpstreamCredential | None) -> Found:
    """Ask a server, which may have no row yet, for everything it offers.

    Raises UpstreamProblem, and CallInTransaction inside a transaction.
    """
    outbound_calls.refuse_in_transaction()
    outbound_calls.release_connections()

    async def looking() -> Found:
        try:
            return await explore(as_upstream(server, credential))
        finally:
            await exchange.background_done()
            await close_client_of(server.pk)

    return asyncio.run(looking())


def discover(server: UpstreamServer) -> dict[str, int]:
    """Look, then sync the rows and the status. Returns the counts of the sync.

    Raises UpstreamProblem after its text is stored; also if another process is at it.
    """
    credential = begin(server)
    try:
        seen = look(server, credential)
    except UpstreamProblem as problem:
        store_problem(server, problem)
        raise
    return store(server, seen)


def begin(server: UpstreamServer) -> UpstreamCredential | None:
    """Take the lease of a discovery and read the shared credential.

    The lease ends by itself. Raises UpstreamProblem if another process has it.
    """
    UpstreamStatus.objects.get_or_create(upstream=server)
    now = timezone.now()
    free = Q(discovering_until=None) | Q(discovering_until__lt=now)
    rows = UpstreamStatus.objects.filter(free, upstream=server)
    if not rows.update(discovering_until=now + LEASE):
        name = server.name
        text = f"Another process is looking at {name} now. Try again in a minute."
        raise UpstreamProblem("busy", text)
    return UpstreamCredential.objects.filter(upstream=server, user=None).first()


def store(server: UpstreamServer, seen: Found) -> dict[str, int]:
    """Sync the rows with what was found; returns the counts. Ends the lease."""
    hold = server.new_definitions == NewDefinitions.HOLD
    counts = Primitive.objects.sync(seen.offers, server, hold=hold, cut=seen.cut)
    now = timezone.now()
    status = {
        "checked_at": now,
        "contacted_at": now,
        "error": seen.truncated[:500],
        "server_name": seen.server_name,
        "server_version": seen.server_version,
        "protocol": seen.protocol,
        "latency_ms": seen.latency_ms,
        "discovering_until": None,
    }
    # A server that was just added has no row yet.
    UpstreamStatus.objects.update_or_create(upstream=server, defaults=status)
    set_credential_state(server, UpstreamCredential.State.VALID)
    return counts


def store_problem(server: UpstreamServer, problem: UpstreamProblem) -> None:
    """Store why the discovery failed; the rows stay. Ends the lease."""
    UpstreamStatus.objects.filter(upstream=server).update(
        checked_at=timezone.now(), error=problem.text[:500], discovering_until=None
    )
    if problem.code == "credential":
        set_credential_state(server, UpstreamCredential.State.REJECTED)


def set_credential_state(server: UpstreamServer, state: str) -> None:
    """Set the state of the shared credential, if it differs."""
    rows = UpstreamCredential.objects.filter(upstream=server, user=None)
    rows.exclude(state=state).update(state=state)
