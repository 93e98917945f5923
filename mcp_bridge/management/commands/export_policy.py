"""`manage.py export_policy > policy.json`."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand

from mcp_bridge.access.policy_file import export_text


class Command(BaseCommand):
    help = "Print roles, scopes and required scopes of primitives as JSON."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(export_text(), ending="")
