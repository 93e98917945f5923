"""`manage.py add_user NAME --role R ... --password-stdin`."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError
from django.db import transaction

from accounts.audit.record import record
from accounts.management.arguments import ACTOR, role_named, user_named
from accounts.models import RoleAssignment, User


class Command(BaseCommand):
    """Add an account with its roles; an existing name is an error."""

    help = "Add a user with roles."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The name of the new account.")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            metavar="ROLE",
            help="Assign this role without an end; repeatable.",
        )
        parser.add_argument(
            "--email", default="", help="The address for password mails."
        )
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="Read the password from standard input.",
        )
        parser.add_argument(
            "--staff", action="store_true", help="Allow the admin site."
        )
        parser.add_argument(
            "--superuser", action="store_true", help="Grant every admin permission."
        )
        parser.add_argument(
            "--service-account",
            action="store_true",
            help="Mark the account as one of a program.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Validate everything, then add user and roles in one transaction."""
        roles = [role_named(role) for role in dict.fromkeys(options["role"])]
        user = User(
            username=options["username"],
            email=options["email"],
            is_staff=options["staff"] or options["superuser"],
            is_superuser=options["superuser"],
            is_service_account=options["service_account"],
        )
        self.set_password(user, options["password_stdin"])
        try:
            user.full_clean(exclude=["password"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        name = user.username
        with transaction.atomic():
            user.save()
            record("user.added", actor=ACTOR, object=user)
            for role in roles:
                reason = "added with the user"
                assignment, _new = RoleAssignment.objects.grant(
                    user, role, reason=reason
                )
                record("role.granted", actor=ACTOR, object=assignment)
        role_names = ", ".join(role.name for role in roles) or "no role"
        self.stdout.write(f"Added {user_named(name)} with {role_names}.")

    def set_password(self, user: User, from_stdin: bool) -> None:
        """Without --password-stdin the account has no usable password."""
        if not from_stdin:
            user.set_unusable_password()
            return
        raw = sys.stdin.readline().rstrip("\r\n")
        if not raw:
            raise CommandError("No password on standard input: echo PASSWORD | ...")
        try:
            validate_password(raw, user)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        user.set_password(raw)
