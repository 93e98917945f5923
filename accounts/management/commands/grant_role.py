"""`manage.py grant_role USER ROLE [--until 30d] [--reason ...]`."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand
from django.db import transaction

from accounts.audit.record import record
from accounts.management.arguments import ACTOR, moment, role_named, short, user_named
from accounts.models import RoleAssignment


class Command(BaseCommand):
    """Grant a role from the next message on; records the event."""

    help = "Grant a role to a user, optionally with an expiry."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The user who gets the role.")
        parser.add_argument("role", help="The name of the role.")
        parser.add_argument(
            "--until", help="2026-12-31, 8h or 30d. Default: no expiry."
        )
        parser.add_argument(
            "--reason", default="", type=short, help="Shown in the list and the audit."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user, role = user_named(options["username"]), role_named(options["role"])
        until = moment(options["until"]) if options["until"] else None
        reason = options["reason"]
        with transaction.atomic():
            assignment, new = RoleAssignment.objects.grant(
                user, role, reason=reason, expires_at=until
            )
            verb = "role.granted" if new else "role.extended"
            record(verb, actor=ACTOR, object=assignment, reason=reason)
        end = f" until {until:%Y-%m-%d %H:%M %Z}" if until else ""
        self.stdout.write(f"{assignment}{end}.")
