"""`manage.py import_users FILE [--dry-run]`: users and roles from CSV."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.imports.user_csv_apply import apply_users
from accounts.imports.user_csv_plan import Plan, plan_users
from accounts.management.arguments import ACTOR, file_named


class Command(BaseCommand):
    """Preview the changes of a file, or apply them in one transaction."""

    help = "Add and change users and their roles from a CSV file."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", help="CSV with a header; see administration.md.")
        parser.add_argument("--dry-run", action="store_true", help="Change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        raw = file_named(options["file"])
        made = plan_users(raw, ACTOR)
        if made.problems:
            listed = "\n".join(map(str, made.problems[:50]))
            more = len(made.problems) - 50
            rest = f"\nand {more} more" if more > 0 else ""
            raise CommandError(f"Nothing was changed.\n{listed}{rest}")
        self.tell(made)
        if not options["dry_run"]:
            self.work(raw, made)

    def tell(self, made: Plan) -> None:
        """Print each changed line and the counts."""
        for step in made.steps:
            if step.what != "same":
                parts = [f"{k}: {b} -> {a}" for k, (b, a) in step.changes.items()]
                self.stdout.write(f"{step.what} {step.username}  {'; '.join(parts)}")
        counts = ", ".join(f"{made.count(w)} {w}" for w in ("add", "change", "same"))
        self.stdout.write(f"{len(made.steps)} lines: {counts}.")

    def work(self, raw: bytes, made: Plan) -> None:
        """Apply the file and print the progress."""
        for done, total in apply_users(raw, made.mark, ACTOR):
            if done % 2000 == 0 and done:
                self.stdout.write(f"{done} of {total}")
        self.stdout.write("Done.")
