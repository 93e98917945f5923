"""`manage.py invite USERNAME [--email] [--role ROLE] [--until/--for] [--json]`."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from accounts.authentication.invitations import mail_configured, mail_invitation
from accounts.authorization.delegation import NotAllowed
from accounts.authorization.invitations import Issued, invitation_url, invite
from accounts.management.arguments import ACTOR, moment, role_named
from accounts.models import User


class Command(BaseCommand):
    """Print a link that works once; an earlier link of the person ends."""

    help = "Invite a person: print a link to set a password or a passkey."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The account; it is added if needed.")
        parser.add_argument("--email", default="", help="The address of the account.")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            metavar="ROLE",
            help="Grant this role; repeatable.",
        )
        ends = parser.add_mutually_exclusive_group()
        ends.add_argument("--until", help="When the roles end: 2026-12-31.")
        ends.add_argument("--for", dest="until", help="How long: 8h or 30d.")
        parser.add_argument(
            "--mail", action="store_true", help="Also send the link by mail."
        )
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        roles = [role_named(name) for name in dict.fromkeys(options["role"])]
        until = moment(options["until"]) if options["until"] else None
        user = self.user(options["username"], options["email"])
        if options["mail"] and not (user.email and mail_configured()):
            raise CommandError("--mail needs --email and EMAIL_HOST.")
        try:
            issued = invite(user, roles, until, actor=ACTOR)
        except NotAllowed as error:
            raise CommandError(str(error)) from error
        if options["mail"]:
            mail_invitation(issued)
        self.report(issued, options["json"])

    def user(self, name: str, email: str) -> User:
        """The account, or a new one that is not saved. Raises CommandError."""
        known: User | None = User.objects.all().named(name)
        if known is not None and email and email.lower() != known.email:
            raise CommandError(f"{known} has another address. Leave out --email.")
        user = known or User(username=name, email=email)
        try:
            user.full_clean(exclude=["password"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        return user

    def report(self, issued: Issued, as_json: bool) -> None:
        row, raw = issued
        end = row.expires_at
        fields = {
            "username": row.user.username,
            "url": invitation_url(raw),
            "expires_at": end.isoformat(),
            "mailed_to": row.mailed_to,
        }
        if as_json:
            self.stdout.write(json.dumps(fields))
            return
        self.stdout.write(invitation_url(raw))
        until = f"{end:%Y-%m-%d %H:%M %Z}"
        self.stdout.write(f"Send it to {row.user} only. It works once, until {until}.")
