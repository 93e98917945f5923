"""`manage.py list_users [--role ROLE] [--inactive] [--json]`."""

from __future__ import annotations

from typing import Any

from accounts.management.arguments import role_named
from accounts.management.listing import ListingCommand
from accounts.models import User


class Command(ListingCommand):
    """List accounts with their unexpired roles."""

    help = "List the users with their roles."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("--role", help="Only users who have this role now.")
        parser.add_argument(
            "--inactive", action="store_true", help="Only deactivated users."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        users = User.objects.prefetch_related("role_assignments__role")
        found = [
            summary_of_user(user)
            for user in users.filter(is_active=not options["inactive"])
        ]
        if options["role"]:
            name = role_named(options["role"]).name
            found = [one for one in found if name in one["roles"]]
        empty = "No such users. Add one: manage.py add_user NAME"
        self.report(options, found, [line_of_user(one) for one in found] or [empty])


def summary_of_user(user: User) -> dict[str, Any]:
    """An account as JSON; `roles` maps each role to its end or null."""
    held = [one for one in user.role_assignments.all() if not one.expired]
    return {
        "username": user.username,
        "email": user.email,
        "active": user.is_active,
        "staff": user.is_staff,
        "superuser": user.is_superuser,
        "service_account": user.is_service_account,
        "last_login": user.last_login,
        "roles": {one.role.name: one.expires_at for one in held},
    }


def line_of_user(summary: dict[str, Any]) -> str:
    """The same on one line."""
    marks = [
        word
        for word in ("superuser", "staff", "service_account")
        if summary[word] and not (word == "staff" and summary["superuser"])
    ]
    roles = [
        f"{name} until {end:%Y-%m-%d %H:%M}" if end else name
        for name, end in summary["roles"].items()
    ]
    words = [", ".join(roles) or "no role", *(m.replace("_", " ") for m in marks)]
    words += [] if summary["active"] else ["deactivated"]
    return f"{summary['username']}: {'; '.join(words)}"
