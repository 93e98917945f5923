"""`manage.py check_access USER TOOL [--kind KIND] [--json]`."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError

from accounts.management.arguments import user_named
from accounts.management.listing import ListingCommand
from accounts.models import User
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access import explain
from mcp_bridge.access.catalogue import read_catalogue
from mcp_bridge.models import Primitive, PrimitiveKind


class Command(ListingCommand):
    """The decision about one message, as *Access check* in the admin shows it.

    Exits with 0 also for a denial; scripts read `allowed` in the JSON.
    """

    help = "Say whether a user may use a tool now, why, and what would change it."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("username", help="The name of the user.")
        parser.add_argument(
            "tool", help="The name of the tool or prompt, or a resource's URI."
        )
        parser.add_argument(
            "--kind",
            choices=PrimitiveKind.values,
            help="Needed if a tool and a prompt have the same name.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_named(options["username"])
        row = primitive_named(options["tool"], options["kind"])
        found = checked(user, row)
        word = "allowed" if found["allowed"] else "denied"
        lines = [f"{user} may use {row}: {word} ({found['why']})."]
        lines += [f"Limits: {limit}" for limit in found["limits"]]
        lines += [f"Fix: {found['fix']}"] if found["fix"] else []
        self.report(options, found, lines)


def primitive_named(name: str, kind: str | None) -> Primitive:
    """The tool, resource or prompt. Raises CommandError."""
    rows = Primitive.objects.filter(name=name)
    found = list(rows.filter(kind=kind) if kind else rows)
    if len(found) == 1:
        return found[0]
    if found:
        kinds = ", ".join(row.kind for row in found)
        raise CommandError(f"There are several {name}; add --kind: {kinds}.")
    raise CommandError(f"There is no {kind or 'tool'} {name}: manage.py list_tools")


def checked(user: User, row: Primitive) -> dict[str, Any]:
    """The decision about a message with an ordinary browser token, as JSON."""
    about = {"user": user.username, "kind": row.kind, "name": row.name}
    catalogue = read_catalogue()
    (rule,) = explain.rules(catalogue, (row.kind, row.name))
    try:
        principal = explain.user_principal(user)
    except Unauthenticated as refusal:
        text = explain.refusal_text(refusal)
        why = {"reason": refusal.reason, "why": text, "fix": "", "limits": []}
        return {**about, "allowed": False, **why}
    verdict = explain.verdict(principal, rule, catalogue)
    return {
        **about,
        "allowed": verdict.decision.allowed,
        "reason": str(verdict.decision.reason),
        "why": verdict.decision.via,
        "fix": explain.remedy(verdict.decision, rule),
        "limits": explain.limits_of(principal, rule),
    }
