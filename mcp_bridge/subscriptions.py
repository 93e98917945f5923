"""CallerBus: what an open subscription is told (MCP 2026-07-28, subscriptions)."""

from __future__ import annotations

from collections.abc import Callable

from mcp.server.subscriptions import InMemorySubscriptionBus, ServerEvent
from mcp.shared.subscriptions import ResourceUpdated

from mcp_bridge.current import Call, current_call
from mcp_bridge.decision import judge
from mcp_bridge.visibility import VisibleResources


class CallerBus(InMemorySubscriptionBus):
    """Events reach a subscriber only about what its caller may read at that moment."""

    def __init__(self, resources: VisibleResources) -> None:
        super().__init__()
        self.resources = resources

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Register `listener` for the caller being served."""
        call = current_call()

        def deliver(event: ServerEvent) -> None:
            if call is not None and self.concerns(call, event):
                listener(event)

        return super().subscribe(deliver)

    def concerns(self, call: Call, event: ServerEvent) -> bool:
        """Whether `event` may reach the caller; that lists changed may reach all."""
        if not isinstance(event, ResourceUpdated):
            return True
        key = self.resources.locate(str(event.uri))
        rule = call.catalogue.get(key) if key else None
        return judge(call.principal, rule).allowed
