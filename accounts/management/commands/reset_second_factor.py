"""`manage.py reset_second_factor USER`: for users who lost all their factors."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand

from accounts.authentication.mfa import reset_mfa
from accounts.management.arguments import ACTOR, user_named
from accounts.parsing.text import counted


class Command(BaseCommand):
    help = "Remove all second factors of an account."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("username", help="The user who lost the second factor.")

    def handle(self, *args: Any, **options: Any) -> None:
        count = reset_mfa(user_named(options["username"]), actor=ACTOR)
        self.stdout.write(f"{counted(count, 'second factor')} removed.")
