"""`manage.py import_users FILE [--dry-run]`: users and roles from a file."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.authorization.invitations import invitation_url, invite_imported
from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import Plan, plan_users
from accounts.management.arguments import ACTOR, file_named
from accounts.parsing.text import counted


class Command(BaseCommand):
    """Preview the changes of a file, or apply them in one transaction."""

    help = "Add and change users and their roles from an .xlsx or CSV file."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "file", help=".xlsx or CSV with a header; see administration.md."
        )
        parser.add_argument("--dry-run", action="store_true", help="Change nothing.")
        parser.add_argument(
            "--invite",
            action="store_true",
            help="Print an invitation link for each person who cannot sign in yet.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        raw = file_named(options["file"])
        plan = plan_users(raw, ACTOR)
        if plan.problems:
            listed = "\n".join(map(str, plan.problems[:50]))
            more = len(plan.problems) - 50
            rest = f"\nand {more} more" if more > 0 else ""
            raise CommandError(f"Nothing was changed.\n{listed}{rest}")
        self.print_plan(plan)
        if not options["dry_run"]:
            self.apply(raw, plan)
            if options["invite"]:
                self.print_links([step.username for step in plan.steps])

    def print_links(self, names: list[str]) -> None:
        for row, token in invite_imported(names, actor=ACTOR):
            self.stdout.write(f"{row.user}  {invitation_url(token)}")

    def print_plan(self, plan: Plan) -> None:
        """Print each changed line and the counts."""
        for step in plan.steps:
            if step.what != "same":
                parts = [f"{k}: {b} -> {a}" for k, (b, a) in step.changes.items()]
                self.stdout.write(f"{step.what} {step.username}  {'; '.join(parts)}")
        counts = ", ".join(f"{plan.count(w)} {w}" for w in ("add", "change", "same"))
        self.stdout.write(f"{counted(len(plan.steps), 'line')}: {counts}.")

    def apply(self, raw: bytes, plan: Plan) -> None:
        """Apply the file and print the progress."""
        for count, total in apply_users(raw, plan.mark, ACTOR):
            if count % 2000 == 0 and count:
                self.stdout.write(f"{count} of {total}")
        self.stdout.write("Done.")
