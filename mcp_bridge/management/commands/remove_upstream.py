"""`manage.py remove_upstream NAME`."""

from __future__ import annotations

from typing import Any

from accounts.management.arguments import ACTOR
from accounts.parsing.text import counted
from mcp_bridge.management.upstream_commands import UpstreamCommand, server_named
from mcp_bridge.upstreams.registration.servers import remove


class Command(UpstreamCommand):
    """The next message finds none of its tools."""

    help = "Remove an upstream server with its credential and definitions."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", help="The upstream server.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        count = remove([server_named(name)], actor=ACTOR)
        shown = {"removed": name, "definitions": count}
        self.report(
            options, shown, [f"{name} removed with {counted(count, 'definition')}."]
        )
