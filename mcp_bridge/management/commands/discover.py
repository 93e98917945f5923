"""`manage.py discover [NAME]`."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError

from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from mcp_bridge.management.upstream_commands import UpstreamCommand, server_named
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem


class Command(UpstreamCommand):
    """Exit code 1 if a server could not be asked; the others are asked anyway."""

    help = "Ask upstream servers what they offer now."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", nargs="?", help="Default: every enabled server.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        enabled = UpstreamServer.objects.filter(enabled=True)
        servers = [server_named(name)] if name else list(enabled)
        found = [result_of(server) for server in servers]
        self.report(options, found, [discovered_line(result) for result in found])
        failed = [result["name"] for result in found if result["error"]]
        if failed:
            raise CommandError(f"Not every server answered: {', '.join(failed)}.")


def result_of(server: UpstreamServer) -> dict[str, Any]:
    """The counts of one discovery, or its problem."""
    try:
        counts = discovery.discover(server)
    except UpstreamProblem as problem:
        return {"name": server.name, "error": problem.text}
    changes = {name: [None, number] for name, number in counts.items() if number}
    record("upstream.discovered", actor=ACTOR, object=server, changes=changes)
    return {"name": server.name, "error": "", **counts}


def discovered_line(result: dict[str, Any]) -> str:
    if result["error"]:
        return f"{result['name']}: {result['error']}"
    counts = {k: v for k, v in result.items() if k not in ("name", "error")}
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    return f"{result['name']}: {shown}"
