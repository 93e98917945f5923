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

MAX_MINUTES = 365 * 24 * 60


class Command(BaseCommand):
    """Issue an access token and print it once."""

    help = "Issue an access token to a user."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The owner of the token.")
        parser.add_argument(
            "--scope", default="", help='For example "mcp Admin.Write". Default: mcp.'
        )
        parser.add_argument(
            "--minutes", type=int, help="Lifetime. Default: ACCESS_TOKEN_LIFETIME."
        )
        parser.add_argument(
            "--refresh", action="store_true", help="Issue a refresh token too."
        )
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            metavar="CIDR",
            help="Accept the token from this network only; repeatable.",
        )
        parser.add_argument(
            "--json", action="store_true", help="Print JSON like /api/token/."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Issue it as /api/token/ does."""
        user = user_named(options["username"])
        minutes = options["minutes"]
        if minutes is not None and not 1 <= minutes <= MAX_MINUTES:
            raise CommandError(f"--minutes must be from 1 to {MAX_MINUTES}.")
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

    def networks(self, values: list[str]) -> str:
        """CIDR networks in the column's format. Raises CommandError."""
        text = " ".join(values)
        try:
            validate_networks(text)
        except ValidationError as error:
            raise CommandError(error.messages[0]) from error
        return text
