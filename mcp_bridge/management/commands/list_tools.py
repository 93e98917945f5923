"""`manage.py list_tools [--kind KIND] [--json]`."""

from __future__ import annotations

from typing import Any

from accounts.management.listing import ListingCommand
from mcp_bridge.models import DefinitionState, Primitive, PrimitiveKind


class Command(ListingCommand):
    """List what the server offers, and the roles that may use it."""

    help = "List tools, resources and prompts with the roles that may use them."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--kind", choices=PrimitiveKind.values, help="Only this kind."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Primitive.objects.select_related("upstream")
        rows = rows.prefetch_related("required_scopes__roles")
        rows = rows.defer("accepted", "offered")
        if options["kind"]:
            rows = rows.filter(kind=options["kind"])
        found = [summary_of_tool(row) for row in rows]
        empty = "Nothing is offered. Add an app with an mcp_tools.py to EXTRA_APPS."
        self.report(options, found, [line_of_tool(one) for one in found] or [empty])


def summary_of_tool(row: Primitive) -> dict[str, Any]:
    """A primitive as JSON."""
    scopes = row.required_scopes.all()
    return {
        "kind": row.kind,
        "name": row.name,
        "title": row.title,
        "enabled": row.enabled,
        "sensitive": row.sensitive,
        "state": row.state,
        "upstream": row.upstream.name if row.upstream else None,
        "scopes": sorted(scope.name for scope in scopes),
        "roles": sorted({role.name for scope in scopes for role in scope.roles.all()}),
    }


def line_of_tool(summary: dict[str, Any]) -> str:
    """The same on one line."""
    words = [", ".join(summary["roles"]) or "no role"]
    words += ["sensitive"] if summary["sensitive"] else []
    words += [] if summary["enabled"] else ["disabled"]
    accepted = summary["state"] == DefinitionState.ACCEPTED
    words += [] if accepted else [str(summary["state"])]
    return f"{summary['kind']} {summary['name']}: {'; '.join(words)}"
