"""`manage.py revoke_role USER ROLE`."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import transaction

from accounts.audit.record import record
from accounts.management.arguments import ACTOR, role_named, short, user_named
from accounts.models import RoleAssignment
from accounts.parsing.text import counted


class Command(BaseCommand):
    """Withdraw a role from the next message on; records the event."""

    help = "Withdraw a role from a user; the last one revokes the user's tokens."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The user who loses the role.")
        parser.add_argument("role", help="The name of the role.")
        parser.add_argument("--reason", default="", type=short, help="For the audit.")

    def handle(self, *args: Any, **options: Any) -> None:
        user, role = user_named(options["username"]), role_named(options["role"])
        assignment = RoleAssignment.objects.filter(user=user, role=role).first()
        if assignment is None:
            raise CommandError(f"{user} does not hold {role}.")
        reason = options["reason"]
        with transaction.atomic():
            record("role.withdrawn", actor=ACTOR, object=assignment, reason=reason)
            count = assignment.withdraw(actor=ACTOR)
        tokens = counted(count, "token")
        self.stdout.write(f"{user} no longer has {role}; {tokens} revoked.")
