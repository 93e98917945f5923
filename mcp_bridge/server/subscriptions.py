"""CallerBus: filters events of open subscriptions by caller (MCP 2026-07-28)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mcp.server.subscriptions import InMemorySubscriptionBus, ServerEvent
from mcp.shared.subscriptions import ResourceUpdated

from mcp_bridge.access.context import Call, current_call
from mcp_bridge.access.decision import judge
from mcp_bridge.cache.recheck import Recheck, recheck_var
from mcp_bridge.server.visibility import VisibleResources


class CallerBus(InMemorySubscriptionBus):
    """Delivers an event only if the subscriber may read its resource at that moment."""

    def __init__(self, resources: VisibleResources) -> None:
        super().__init__()
        self.resources = resources
        self.rechecks: list[Recheck] = []

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

        def unsubscribe() -> None:
            leave()
            with suppress(ValueError):
                self.rechecks.remove(recheck)

        return unsubscribe

    def concerns(self, call: Call, event: ServerEvent) -> bool:
        """Whether the caller may receive `event`; list changes go to every caller."""
        if not isinstance(event, ResourceUpdated):
            return True
        key = self.resources.locate(str(event.uri))
        rule = call.catalogue.get(key) if key else None
        return judge(call.principal, rule).allowed
