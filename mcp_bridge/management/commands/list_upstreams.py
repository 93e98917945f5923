"""`manage.py list_upstreams`."""

from __future__ import annotations

from typing import Any

from mcp_bridge.management.upstream_commands import (
    UpstreamCommand,
    line_of,
    summary_of,
)
from mcp_bridge.models import UpstreamServer


class Command(UpstreamCommand):
    """Secrets are never printed."""

    help = "List the upstream MCP servers with the states of their definitions."

    def handle(self, *args: Any, **options: Any) -> None:
        servers = UpstreamServer.objects.select_related("status")
        shown = [summary_of(server) for server in servers]
        empty = "No upstream servers. Add one: manage.py add_upstream NAME URL"
        self.report(options, shown, [line_of(one) for one in shown] or [empty])
