"""`manage.py demo`: add sample users and data, in development only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command
from django.db import transaction

from accounts.audit.record import record
from accounts.authentication.passwords.hashers import prehashed_password
from accounts.management.arguments import ACTOR
from accounts.models import Role, RoleAssignment, User

PASSWORD = "portico-demo"  # noqa: S105
USERS = {
    "alice": (("User",), False),
    "bob": (("Guest",), False),
    "carol": (("Admin",), True),
}
"""Name -> (roles, may use the admin)."""


class Command(BaseCommand):
    """alice may call tools, bob may list them, carol administers."""

    help = (
        "Add users alice, bob, carol and sample data of installed apps (development)."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Add what is missing; existing users do not change."""
        if settings.ENVIRONMENT != "development":
            raise CommandError("demo needs ENVIRONMENT=development.")
        names = [name for name in USERS if self.add(name)]
        for label in self.sample_data():
            call_command("loaddata", label, verbosity=0)
        for name in names:
            roles = ", ".join(USERS[name][0])
            self.stdout.write(f"{name}  password {PASSWORD}  role {roles}")
        if not names:
            self.stdout.write("alice, bob and carol exist already.")

    def add(self, name: str) -> bool:
        """Add one user with roles; False if the name is taken."""
        roles, runs_admin = USERS[name]
        if User.objects.filter(username=name).exists():
            return False
        rights = {"is_staff": runs_admin, "is_superuser": runs_admin}
        with prehashed_password(PASSWORD), transaction.atomic():
            user = User.objects.create_user(name, password=PASSWORD, **rights)
            record("user.added", actor=ACTOR, object=user, reason="demo")
            for role in roles:
                assignment, _new = RoleAssignment.objects.grant(
                    user, Role.objects.get(name=role), reason="demo"
                )
                record("role.granted", actor=ACTOR, object=assignment, reason="demo")
        return True

    def sample_data(self) -> list[str]:
        """Fixtures named demo.json of the installed apps."""
        configs = apps.get_app_configs()
        paths = [Path(config.path) / "fixtures" / "demo.json" for config in configs]
        return [str(path) for path in paths if path.exists()]
