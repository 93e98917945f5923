"""`manage.py issue_token USER [--scope ...] [--minutes N] [--json]`."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from accounts.errors import OAuthError
from accounts.http.ip_networks import validate_networks
from accounts.management.arguments import ACTOR, user_named
from accounts.models import IssuedVia
from accounts.tokens.issue import allowed_scope, issue_tokens

LONGEST_MINUTES = 365 * 24 * 60


class Command(BaseCommand):
    """Issue an access token and print it once."""

    help = "Issue an access token to a user."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username")
        parser.add_argument("--scope", default="", help='Such as "mcp Admin.Write".')
        parser.add_argument("--minutes", type=int, help="Default: as the setting.")
        parser.add_argument(
            "--refresh", action="store_true", help="With a refresh one."
        )
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            metavar="CIDR",
            help="Counts from here only; may be repeated.",
        )
        parser.add_argument("--json", action="store_true", help="As /api/token/.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue it as the password grant does."""
        user = user_named(options["username"])
        minutes = options["minutes"]
        if minutes is not None and not 1 <= minutes <= LONGEST_MINUTES:
            raise CommandError(f"--minutes goes from 1 to {LONGEST_MINUTES}.")
        try:
            pair = issue_tokens(
                user,
                issued_via=IssuedVia.COMMAND,
                scope=allowed_scope(user, options["scope"]),
                refresh=options["refresh"],
                lifetime=timedelta(minutes=minutes) if minutes else None,
                networks=self.networks(options["network"]),
                actor=ACTOR,
            )
        except OAuthError as error:
            raise CommandError(str(error)) from error
        if not options["json"]:
            self.stdout.write(pair.access)
            return
        answer = {"access": pair.access, "expires_in": pair.expires_in}
        answer |= {"refresh": pair.refresh} if pair.refresh else {}
        self.stdout.write(json.dumps({**answer, "scope": pair.row.scope}))

    def networks(self, given: list[str]) -> str:
        """CIDR networks in the column's format. Raises CommandError."""
        text = " ".join(given)
        try:
            validate_networks(text)
        except ValidationError as error:
            raise CommandError(error.messages[0]) from error
        return text
