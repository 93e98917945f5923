"""`manage.py revoke --user U | --client C | --family F | --jti ID | --token-stdin`.

Or `--everything`: after a backup was restored, which has forgotten revocations.
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

from django.core.management import BaseCommand, CommandError

from accounts import tokens
from accounts.management.lookups import ACTOR, short, user_named
from accounts.models import IssuedToken


class Command(BaseCommand):
    """End tokens from the next message on."""

    help = "Revoke tokens: of a user, a client, a family, or a single one."

    def add_arguments(self, parser: Any) -> None:
        """Exactly one way of saying which."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--user")
        which.add_argument("--client", metavar="CLIENT_ID")
        which.add_argument("--family", type=UUID, help="UUID of a refresh family.")
        which.add_argument("--jti", help="A token's id.")
        which.add_argument("--token-stdin", action="store_true", help="Read the token.")
        which.add_argument("--everything", action="store_true", help="Every token.")
        parser.add_argument(
            "--reason", default="revoked on the command line", type=short
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Find and revoke."""
        chosen = IssuedToken.objects.filter(**self.which(options))
        if not chosen.exists():
            raise CommandError("No such token was ever issued.")
        ended = chosen.revoke(actor=ACTOR, reason=options["reason"])
        self.stdout.write(f"{ended} tokens revoked.")

    def which(self, options: dict[str, Any]) -> dict[str, Any]:
        """The filter that the options mean."""
        if options["everything"]:
            return {}
        if options["user"] is not None:
            return {"user": user_named(options["user"])}
        if options["client"] is not None:
            return {"client_id": options["client"]}
        if options["family"] is not None:
            return {"family": options["family"]}
        if options["jti"] is not None:
            return {"jti": options["jti"]}
        return {"pk": self.pasted().pk}

    def pasted(self) -> IssuedToken:
        """The row of the token on standard input."""
        row = tokens.row_of(sys.stdin.read().strip())
        if row is None:
            raise CommandError("That is not a token issued here.")
        return row
