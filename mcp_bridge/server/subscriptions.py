"""CallerBus: what an open subscription is told (MCP 2026-07-28, subscriptions)."""

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
    """Events reach a subscriber only about what its caller may read at that moment."""

    def __init__(self, resources: VisibleResources) -> None:
        super().__init__()
        self.resources = resources
        self.rechecks: list[Recheck] = []

    async def publish(self, event: ServerEvent) -> None:
        """Deliver `event` by the rights that subscribers have now."""
        if isinstance(event, ResourceUpdated):
            due = [recheck for recheck in self.rechecks if recheck.due]
            # What ends a stream is found by its own watch.
            await asyncio.gather(*(recheck.problem() for recheck in due))
        await super().publish(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Register `listener` for the caller being served."""
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
        """Whether `event` may reach the caller; that lists changed may reach all."""
        if not isinstance(event, ResourceUpdated):
            return True
        key = self.resources.locate(str(event.uri))
        rule = call.catalogue.get(key) if key else None
        return judge(call.principal, rule).allowed
