"""`manage.py restore FILE`: replace the server's database by a copy of `backup`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.contrib.sessions.models import Session
from django.core.management import BaseCommand, CommandError, call_command
from django.db import transaction

from accounts.admin_site import system_status
from accounts.audit.record import record
from accounts.management import database_copies
from accounts.management.arguments import ACTOR
from accounts.models import IssuedToken, User
from accounts.models.oauth import end_pending
from accounts.parsing.text import counted

FIELDS = {"actor": ACTOR, "reason": "database restored"}


class Command(BaseCommand):
    """Restore, migrate, and end all access: the copy lacks what was ended since."""

    help = "Replace the server's database by a copy; stop the servers before."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", type=Path, help="A copy that backup wrote.")
        parser.add_argument(
            "--keep-tokens",
            action="store_true",
            help="Keep tokens and consents of the copy, also those ended since. "
            "Browser sessions end in any case.",
        )
        parser.add_argument(
            "--noinput", action="store_true", help="Do not ask for confirmation."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Any step that fails ends the command with an error."""
        file: Path = options["file"]
        database_copies.require_copy(file)
        if not options["noinput"]:
            self.confirm(file)
        database_copies.replace_by(file)
        call_command("migrate", verbosity=0, interactive=False)
        with transaction.atomic():
            ended = self.end_access(keep_tokens=options["keep_tokens"])
            record("database.restored", actor=ACTOR, object=file.name[:255])
        self.stdout.write(f"Restored {database_copies.described()}: {ended}.")
        for line in system_status.report_lines(system_status.findings()):
            self.stdout.write(line)

    def confirm(self, file: Path) -> None:
        if not sys.stdin.isatty():
            raise CommandError("Nobody can confirm here: repeat it with --noinput.")
        question = f"Replace {database_copies.described()} by {file}? Type yes: "
        if input(question).strip() != "yes":
            raise CommandError("Nothing was changed.")

    def end_access(self, *, keep_tokens: bool) -> str:
        """End what may have been ended since the copy was made; say how much."""
        people = User.objects.all()
        if keep_tokens:
            tokens, browsers = 0, people.sign_out_browsers(**FIELDS)
        else:
            tokens, browsers = people.revoke_all_sessions(**FIELDS)
            # The other tokens belong to deleted accounts.
            tokens += IssuedToken.objects.all().revoke(**FIELDS)
        end_pending(**FIELDS)
        Session.objects.all().delete()
        ended = f"{counted(tokens, 'token')} revoked"
        return f"{ended}, {counted(browsers, 'browser')} signed out"
