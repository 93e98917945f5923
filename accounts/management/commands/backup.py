"""`manage.py backup FILE`: copy the server's database while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import BaseCommand

from accounts.management import database_copies


class Command(BaseCommand):
    """Copy the database that the settings name; the copy is consistent."""

    help = "Copy the server's database to a file, while the server runs."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("file", type=Path, help="The copy to write.")

    def handle(self, *args: Any, **options: Any) -> None:
        file: Path = options["file"]
        database_copies.copy_to(file)
        size = file.stat().st_size / 1e6
        self.stdout.write(
            f"Copied {database_copies.described()} to {file} ({size:.1f} MB). Keep "
            "KEY_ENCRYPTION_KEY and SECRET_KEY elsewhere: a copy needs them."
        )
