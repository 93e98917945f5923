"""`manage.py accept_definitions NAME [TOOL ...|--all] [--role ROLE ...]`."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError
from django.db import transaction
from django.db.models import Q

from accounts.management.arguments import ACTOR, role_named
from mcp_bridge.access import definitions
from mcp_bridge.management.upstream_commands import UpstreamCommand, server_named
from mcp_bridge.models import DefinitionState, Primitive, UpstreamServer


class Command(UpstreamCommand):
    """Accept definitions and give what was accepted to roles, or nothing at all."""

    help = "Accept definitions of an upstream server, and give them to roles."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", help="The upstream server.")
        parser.add_argument(
            "tool", nargs="*", help="Names, here or at the server, or URIs."
        )
        parser.add_argument("--all", action="store_true", help="All that wait.")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            metavar="ROLE",
            help="Give it what is accepted; repeatable.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        server = server_named(options["name"])
        if bool(options["tool"]) == options["all"]:
            raise CommandError("Name the tools, or give --all.")
        roles = [role_named(name) for name in options["role"]]
        rows = chosen(server, options["tool"])
        try:
            with transaction.atomic():
                waits = [row for row in rows if row.state != DefinitionState.ACCEPTED]
                done = definitions.accept(waits, actor=ACTOR, via="command")
                given = definitions.give(rows, roles, actor=ACTOR, via="command")
        except ValueError as error:
            raise CommandError(f"Nothing was accepted. {error}") from error
        names = [row.name for row in done]
        lines = [f"accepted {name}" for name in names]
        lines.append(f"{len(done)} accepted, {given} given to roles.")
        self.report(options, {"accepted": names, "given": given}, lines)


def chosen(server: UpstreamServer, names: list[str]) -> list[Primitive]:
    """The named primitives, or all that wait. Raises CommandError."""
    if not names:
        return list(definitions.waiting().filter(upstream=server, problem=""))
    found = []
    for name in names:
        named = Q(name=name) | Q(upstream_name=name)
        rows = list(Primitive.objects.filter(named, upstream=server))
        if not rows:
            raise CommandError(f"{server.name} has no {name}; see list_upstreams.")
        found += rows
    return found
