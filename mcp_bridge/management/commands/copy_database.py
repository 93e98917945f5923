"""`manage.py copy_database URL`: from SQLite to PostgreSQL, or back."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.audit.record import record
from accounts.management.arguments import ACTOR
from accounts.parsing.text import counted
from mcp_bridge.transfer import comparison, copying
from mcp_bridge.transfer.databases import (
    CopyRefused,
    database_label,
    opened_target,
    snapshot,
)
from mcp_bridge.transfer.rows import Digest, Model


class Command(BaseCommand):
    """Copy a snapshot of everything, then compare both databases."""

    help = "Copy everything to the empty database at URL, and compare both."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "url",
            help="As DATABASE_URL. Give - to write it to standard input instead: every "
            "account of this host can read the arguments of a process.",
        )
        parser.add_argument(
            "--verify",
            action="store_true",
            help="Only compare both databases; copy nothing.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        source, url = connections["default"], options["url"]
        if url == "-":
            url = sys.stdin.readline().strip()
        try:
            with opened_target(url) as target:
                if options["verify"]:
                    self.verify(source, target)
                else:
                    self.copy(source, target)
        except CopyRefused as error:
            raise CommandError(str(error)) from error

    def verify(self, source: BaseDatabaseWrapper, target: BaseDatabaseWrapper) -> None:
        with snapshot(source):
            self.compare(target, comparison.source_digests())

    def copy(self, source: BaseDatabaseWrapper, target: BaseDatabaseWrapper) -> None:
        copying.prepare(source, target)
        labels = database_label(source), database_label(target)
        self.stdout.write("Copying from {} to {} ...".format(*labels))
        # Before the snapshot, so that both databases have it.
        record("database.copied", actor=ACTOR, object="from {} to {}".format(*labels))
        with snapshot(source):
            digests = copying.copy_tables(source, target, self.report)
            self.compare(target, digests)
        self.warn_of_newer(copying.newer_events(source))

    def report(self, table: str, rows: int) -> None:
        self.stdout.write(f"  {table}: {rows:,}")
        self.stdout.flush()

    def compare(
        self, target: BaseDatabaseWrapper, digests: dict[Model, Digest]
    ) -> None:
        """Print what is equal. Raises CopyRefused with every difference."""
        problems = list(comparison.different_tables(digests))
        audit, seals = comparison.audit_problem(target)
        if audit:
            problems.append(f"verify_audit: {audit}")
        problems += comparison.different_decisions(target)
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise CopyRefused(f"The target differs; do not use it:{lines}")
        rows = sum(digest.rows for digest in digests.values())
        self.stdout.write(
            f"Equal: {counted(rows, 'row')} of {len(digests)} tables, "
            f"{counted(seals, 'seal')} of the audit, and the access decisions of a "
            "sample."
        )

    def warn_of_newer(self, events: int) -> None:
        if events:
            self.stderr.write(
                f"{counted(events, 'audit event')} came during the copy, so the target "
                "is out of date: stop every server, and copy to another empty database."
            )
        self.stdout.write("Now set DATABASE_URL to the target and start the servers.")
