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
from accounts.parsing.text import counted
from accounts.tokens import lookup


class Command(BaseCommand):
    """Revoke tokens from the next message on, with everything that issues new ones.

    For a user also codes, consents and browser sessions; for a client also codes.
    """

    help = "Revoke all access of a user or client, a token family, or one token."

    def add_arguments(self, parser: Any) -> None:
        group = parser.add_mutually_exclusive_group(required=True)
        group.add_argument("--user", help="All access of this user, also sessions.")
        group.add_argument(
            "--client", metavar="CLIENT_ID", help="The tokens and codes of this client."
        )
        group.add_argument("--family", type=UUID, help="UUID of a refresh family.")
        group.add_argument("--jti", help="Id of a token.")
        group.add_argument(
            "--token-stdin",
            action="store_true",
            help="Read the token from standard input.",
        )
        group.add_argument("--everything", action="store_true", help="Every token.")
        parser.add_argument(
            "--reason",
            default="revoked on the command line",
            type=short,
            help="For the list of revoked tokens and the audit.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        fields: dict[str, Any] = {"actor": ACTOR, "reason": options["reason"]}
        with transaction.atomic():
            tokens, browsers = self.end_access(options, fields)
        ended = f"{counted(tokens, 'token')} revoked"
        left = f"{counted(browsers, 'browser')} signed out"
        self.stdout.write(f"{ended}, {left}.")

    def end_access(
        self, options: dict[str, Any], fields: dict[str, Any]
    ) -> tuple[int, int]:
        """(tokens, browser sessions) that were ended. Raises CommandError."""
        if options["user"] is not None:
            user = user_named(options["user"])
            tokens, browsers = User.objects.filter(pk=user.pk).revoke_all_sessions(
                **fields
            )
            return tokens, browsers
        if options["everything"]:
            tokens, browsers = User.objects.all().revoke_all_sessions(**fields)
            end_pending(**fields)
            # The other tokens belong to deleted accounts.
            return tokens + IssuedToken.objects.all().revoke(**fields), browsers
        rows = IssuedToken.objects.filter(**self.token_filter(options))
        clients = OAuthClient.objects.filter(client_id=options["client"])
        if not rows.exists() and not clients.exists():
            raise CommandError("Portico issued no such token.")
        return clients.end_access(**fields) + rows.revoke(**fields), 0

    def token_filter(self, options: dict[str, Any]) -> dict[str, Any]:
        """The queryset filter for the options."""
        if options["client"] is not None:
            return {"client_id": options["client"]}
        if options["family"] is not None:
            return {"family": options["family"]}
        if options["jti"] is not None:
            return {"jti": options["jti"]}
        return {"pk": self.token_from_stdin().pk}

    def token_from_stdin(self) -> IssuedToken:
        """The row of the token on standard input. Raises CommandError."""
        row = lookup.find_token(sys.stdin.read().strip())
        if row is None:
            raise CommandError("Portico did not issue this token.")
        return row
