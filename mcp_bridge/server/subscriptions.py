"""Events of open streams, by caller: changed lists and updated resources.

An open stream is rechecked twice a second, by rows that every worker reads. What its
caller's lists show is compared then, so a changed role, rule or definition is noticed
on every worker, and nobody learns of primitives that are hidden from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from mcp.server.subscriptions import InMemorySubscriptionBus, ServerEvent
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from pydantic_core import to_json
from starlette.types import Send

from accounts.tokens.principal import Principal
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, current_call
from mcp_bridge.access.decision import granting_roles, judge, visible
from mcp_bridge.cache.recheck import Recheck, recheck_var
from mcp_bridge.models import PrimitiveKind
from mcp_bridge.server.visibility import VisibleResources

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
