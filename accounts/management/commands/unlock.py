"""`manage.py unlock [USER] [--address IP]`: unlock after failed sign-ins."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.authentication.lockout import failures_of, unlock
from accounts.http.client_address import normalize_address
from accounts.management.arguments import ACTOR
from accounts.models import User
from accounts.parsing.text import counted


class Command(BaseCommand):
    """Reset the failed sign-ins of an account, an address, or both."""

    help = "Unlock an account or an address after failed sign-ins."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "username", nargs="?", default="", help="Reset the counters of this user."
        )
        parser.add_argument(
            "--address",
            default="",
            metavar="IP",
            help="Reset the counters of this address.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name, typed = options["username"], options["address"]
        if not name and not typed:
            raise CommandError("Give a user name, or an address with --address.")
        address = normalize_address(typed)
        if typed and not address:
            raise CommandError(f"{typed} is not an IP address.")
        known = failures_of(name) or User.objects.all().named(name) is not None
        if name and not known:
            raise CommandError(
                f"There is no user {name}, and no failed sign-ins of that name."
            )
        count = unlock(username=name, address=address, actor=ACTOR)
        self.stdout.write(f"Unlocked; {counted(count, 'counter')} reset.")
