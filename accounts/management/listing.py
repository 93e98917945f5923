"""Commands that print rows: lines for people, `--json` for programs."""

from __future__ import annotations

import json
from typing import Any

from django.core.management import BaseCommand


class ListingCommand(BaseCommand):
    """A command with `--json`."""

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def report(self, options: dict[str, Any], data: Any, lines: list[str]) -> None:
        """Print `data` as JSON, or the lines."""
        text = json.dumps(data, ensure_ascii=False, default=str)
        self.stdout.write(text if options["json"] else "\n".join(lines))
