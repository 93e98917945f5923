"""`manage.py revoke_tokens --user U | --client C | --family F | --jti ID`.

`--everything` is for a restored backup, which lacks newer revocations.
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

from django.core.management import BaseCommand, CommandError
from django.db import transaction

from accounts.management.arguments import ACTOR, short, user_named
from accounts.models import IssuedToken, OAuthClient, User
from accounts.models.oauth import end_pending
from accounts.tokens import lookup


class Command(BaseCommand):
    """Revoke tokens from the next message on, with everything that issues new ones.

    For a user also codes, consents and browser sessions; for a client also codes.
    """

    help = "Revoke tokens: all access of a user, of a client, a family, or one token."

    def add_arguments(self, parser: Any) -> None:
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
        said: dict[str, Any] = {"actor": ACTOR, "reason": options["reason"]}
        with transaction.atomic():
            ended, browsers = self.end_access(options, said)
        self.stdout.write(f"{ended} tokens revoked, {browsers} browsers signed out.")

    def end_access(
        self, options: dict[str, Any], said: dict[str, Any]
    ) -> tuple[int, int]:
        """(tokens, browser sessions) that were ended. Raises CommandError."""
        if options["user"] is not None:
            user = user_named(options["user"])
            issue, browsers = User.objects.filter(pk=user.pk).revoke_all_sessions(
                **said
            )
            return issue, browsers
        if options["everything"]:
            issue, browsers = User.objects.all().revoke_all_sessions(**said)
            end_pending(**said)
            # What is left belongs to accounts that are gone.
            return issue + IssuedToken.objects.all().revoke(**said), browsers
        chosen = IssuedToken.objects.filter(**self.which(options))
        clients = OAuthClient.objects.filter(client_id=options["client"])
        if not chosen.exists() and not clients.exists():
            raise CommandError("No such token was ever issued.")
        return clients.end_access(**said) + chosen.revoke(**said), 0

    def which(self, options: dict[str, Any]) -> dict[str, Any]:
        """The queryset filter for the options."""
        if options["client"] is not None:
            return {"client_id": options["client"]}
        if options["family"] is not None:
            return {"family": options["family"]}
        if options["jti"] is not None:
            return {"jti": options["jti"]}
        return {"pk": self.pasted().pk}

    def pasted(self) -> IssuedToken:
        """The row of the token on standard input. Raises CommandError."""
        row = lookup.find_token(sys.stdin.read().strip())
        if row is None:
            raise CommandError("That is not a token issued here.")
        return row
