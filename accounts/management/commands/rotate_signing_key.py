"""`manage.py rotate_signing_key [--algorithm ES256]`."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand

from accounts.management.arguments import ACTOR
from accounts.models import SigningKey


class Command(BaseCommand):
    """Sign with the next key from now on; tokens of the old key stay valid."""

    help = "Activate the next signing key and publish its successor."

    def add_arguments(self, parser: Any) -> None:
        choices = SigningKey.Algorithm.values
        parser.add_argument(
            "--algorithm",
            choices=choices,
            default="",
            help="Algorithm of the new key. Default: SIGNING_ALGORITHM.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        key = SigningKey.objects.rotate(actor=ACTOR, algorithm=options["algorithm"])
        self.stdout.write(f"New tokens are signed with {key.kid} ({key.algorithm}).")
