"""Events of open streams, by caller: changed lists and updated resources.

An open stream is rechecked twice a second, by rows that every worker reads. What its
caller's lists show is compared then, so a changed role, rule or definition is noticed
on every worker, and nobody learns of primitives that are hidden from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ServerEvent,
    _honored_subset,
)
from mcp.shared.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
    event_to_notification,
)
from mcp_types import (
    JSONRPCNotification,
    RequestId,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, current_call
from mcp_bridge.access.decision import granting_roles, judge, visible
from mcp_bridge.cache.recheck import Recheck, recheck_var
from mcp_bridge.http.event_stream import (
    EventStream,
    forget_headers,
    send_part,
    sse_event,
    stream_head,
)
from mcp_bridge.models import PrimitiveKind
from mcp_bridge.server.direct_dispatch import dump_message
from mcp_bridge.server.visibility import VisibleResources

logger = logging.getLogger(__name__)

EVENTS: Mapping[str, ServerEvent] = {
    PrimitiveKind.TOOL: ToolsListChanged(),
    PrimitiveKind.RESOURCE: ResourcesListChanged(),
    PrimitiveKind.RESOURCE_TEMPLATE: ResourcesListChanged(),
    PrimitiveKind.PROMPT: PromptsListChanged(),
}
METHODS: Mapping[ServerEvent, str] = {
    ToolsListChanged(): "notifications/tools/list_changed",
    ResourcesListChanged(): "notifications/resources/list_changed",
    PromptsListChanged(): "notifications/prompts/list_changed",
}


def shown_lists(principal: Principal, catalogue: Catalogue) -> dict[str, int]:
    """Kind -> a hash of all that the caller's list of this kind shows."""
    found = {}
    for kind in EVENTS:
        rules = catalogue.requiring(kind, principal.grants)
        found[kind] = hash(
            tuple(
                (
                    rule.name,
                    rule.accepted_hash,
                    repr(rule.conditions),
                    granting_roles(principal, rule) if rule.conditions else None,
                )
                for rule in rules
                if visible(principal, rule)
            )
        )
    return found


def shown_updates(principal: Principal, catalogue: Catalogue) -> dict[str, int]:
    """URI of each upstream resource that the caller may read -> count of updates."""
    rules = catalogue.requiring(PrimitiveKind.RESOURCE, principal.grants)
    return {
        rule.name: rule.updates
        for rule in rules
        if rule.upstream is not None and visible(principal, rule)
    }


class ListWatch:
    """Compares what the lists of a stream's caller show, and counts of updates."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.read = call.principal, call.catalogue
        self.shown = shown_lists(*self.read)
        self.updates = shown_updates(*self.read)

    def changes(self) -> list[ServerEvent]:
        """Kinds of lists that differ since the last look, and updated resources."""
        principal, catalogue = self.call.principal, self.call.catalogue
        if catalogue is self.read[1] and principal == self.read[0]:
            return []
        self.read, before, counts = (principal, catalogue), self.shown, self.updates
        self.shown = shown_lists(principal, catalogue)
        self.updates = shown_updates(principal, catalogue)
        changed = [EVENTS[kind] for kind in EVENTS if self.shown[kind] != before[kind]]
        updated = [
            ResourceUpdated(uri)
            for uri, count in self.updates.items()
            if counts.get(uri, count) != count
        ]
        return [*dict.fromkeys(changed), *updated]


async def send_changes(watch: ListWatch, send: Send) -> None:
    """Send what changed on the stream that a client of an older protocol opened.

    It cannot subscribe to resources of upstream servers.
    """
    for event in watch.changes():
        if event not in METHODS:
            continue
        body = to_json({"jsonrpc": "2.0", "method": METHODS[event]})
        data = b"event: message\r\ndata: " + body + b"\r\n\r\n"
        await send({"type": "http.response.body", "body": data, "more_body": True})


class CallerBus(InMemorySubscriptionBus):
    """Delivers an event only if the subscriber may read its resource at that moment."""

    def __init__(self, resources: VisibleResources) -> None:
        super().__init__()
        self.resources = resources
        self.rechecks: list[Recheck] = []
        self.listeners: dict[Recheck, Callable[[ServerEvent], None]] = {}

    async def publish(self, event: ServerEvent) -> None:
        """Deliver `event` by the subscribers' current permissions."""
        if isinstance(event, ResourceUpdated):
            due = [recheck for recheck in self.rechecks if recheck.due]
            # The result is not needed: RevocableStream ends a refused stream.
            await asyncio.gather(*(recheck.problem() for recheck in due))
        await super().publish(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Register `listener` for the current caller. Returns `unsubscribe`."""
        call, recheck = current_call(), recheck_var.get()

        def deliver(event: ServerEvent) -> None:
            if call is not None and self.concerns(call, event):
                listener(event)

        leave = super().subscribe(deliver)
        if recheck is None:
            return leave
        self.rechecks.append(recheck)
        self.listeners[recheck] = listener

        def unsubscribe() -> None:
            leave()
            self.listeners.pop(recheck, None)
            with suppress(ValueError):
                self.rechecks.remove(recheck)

        return unsubscribe

    def tell_changes(self, watch: ListWatch, recheck: Recheck) -> None:
        """Deliver what changed to the subscription of this recheck alone."""
        listener = self.listeners.get(recheck)
        for event in watch.changes():
            if listener is not None:
                listener(event)

    def concerns(self, call: Call, event: ServerEvent) -> bool:
        """Whether the caller may receive `event`; list changes go to every caller."""
        if not isinstance(event, ResourceUpdated):
            return True
        key = self.resources.locate(str(event.uri))
        rule = call.catalogue.get(key) if key else None
        return judge(call.principal, rule).allowed


class Listening:
    """One `subscriptions/listen` that is served without the SDK's own stream.

    The SDK's handler of the message only starts it, so what the SDK needed for the
    message is freed. Its streams cost three times as much memory (docs/benchmarks.md).
    """

    __slots__ = ("first", "leave", "request_id", "stream", "wanted")

    def __init__(self) -> None:
        self.stream = EventStream()
        self.leave: Callable[[], None] | None = None
        """Ends the subscription; None if the message was refused."""

    def start(
        self, bus: CallerBus, request_id: RequestId, asked: SubscriptionFilter
    ) -> SubscriptionsListenResult:
        """Subscribe for the current caller; the result of the message at its end."""
        self.request_id, self.wanted = request_id, wanted_events(asked)
        self.leave = bus.subscribe(self.deliver)
        told = SubscriptionsAcknowledgedNotificationParams(
            notifications=_honored_subset(asked), _meta=self.meta
        )
        self.first = as_event(SubscriptionsAcknowledgedNotification(params=told))
        return SubscriptionsListenResult(_meta=self.meta)

    @property
    def meta(self) -> dict[str, Any]:
        """What every message on the stream names."""
        return {SUBSCRIPTION_ID_META_KEY: self.request_id}

    def deliver(self, event: ServerEvent) -> None:
        """Send an event that was asked for; a client that does not read is lost."""
        if event not in self.wanted or self.stream.ended:
            return
        if not self.stream.push(as_event(event_to_notification(event, self.meta))):
            logger.warning("A client does not read its subscription, which ends.")
            self.stream.close()

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, result: bytes
    ) -> None:
        """Serve the stream; `result` is its last event if the server ends it."""
        forget_headers(scope)
        head = stream_head((b"connection", b"keep-alive"))
        try:
            if await self.stream.serve(receive, send, head, self.first):
                await send_part(send, sse_event(result), more=False)
        finally:
            if self.leave is not None:
                self.leave()


listening_var: ContextVar[Listening | None] = ContextVar(
    "portico_listening", default=None
)
"""Set while the SDK handles a `subscriptions/listen` whose stream is not its own."""


def wanted_events(asked: SubscriptionFilter) -> frozenset[ServerEvent]:
    """The events that a subscription is for."""
    flags: dict[ServerEvent, bool | None] = {
        ToolsListChanged(): asked.tools_list_changed,
        PromptsListChanged(): asked.prompts_list_changed,
        ResourcesListChanged(): asked.resources_list_changed,
    }
    uris = asked.resource_subscriptions or ()
    lists = (event for event, wanted in flags.items() if wanted)
    return frozenset((*lists, *map(ResourceUpdated, uris)))


def as_event(notification: ServerNotification) -> bytes:
    """The same bytes as the SDK's own stream sends."""
    data = notification.model_dump(by_alias=True, mode="json", exclude_none=True)
    method, params = data["method"], data.get("params")
    message = JSONRPCNotification(jsonrpc="2.0", method=method, params=params)
    return sse_event(dump_message(message))


class CallerListenHandler(ListenHandler):
    """The SDK's handler, or the start of the current `Listening`.

    The SDK's own limit is a constant, and its refusal no 429.
    """

    def __init__(self, bus: CallerBus) -> None:
        super().__init__(bus, max_subscriptions=settings.MAX_STREAMS)
        self.bus = bus

    async def __call__(
        self,
        ctx: ServerRequestContext[Any, Any],
        params: SubscriptionsListenRequestParams,
    ) -> SubscriptionsListenResult:
        """Serve one listen stream, or start it."""
        listening = listening_var.get()
        if listening is None or ctx.request_id is None:
            return await super().__call__(ctx, params)
        return listening.start(self.bus, ctx.request_id, params.notifications)
