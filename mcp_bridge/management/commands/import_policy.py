"""`manage.py import_policy FILE [--dry-run]`."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.management.arguments import ACTOR, file_named
from accounts.parsing.text import counted
from mcp_bridge.access.policy_file import apply_policy, policy_diff


class Command(BaseCommand):
    """Preview the changes of a policy file, or apply them in one transaction."""

    help = "Compare a policy file with the database, and apply it."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", help="JSON of export_policy or of the admin.")
        parser.add_argument("--dry-run", action="store_true", help="Change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        raw = file_named(options["file"])
        diff = policy_diff(raw)
        if diff.problems:
            listed = "\n".join(map(str, diff.problems))
            raise CommandError(f"Nothing was changed.\n{listed}")
        for change in diff.changes:
            self.stdout.write(f"{'add' if change.new else 'change'} {change}")
            for name, before, after in change.fields:
                self.stdout.write(f"  {name}: {before} -> {after}")
        if options["dry_run"]:
            self.stdout.write(f"{counted(len(diff.changes), 'item')} would change.")
        else:
            count = apply_policy(raw, diff.mark, ACTOR)
            self.stdout.write(f"{counted(count, 'item')} changed.")
