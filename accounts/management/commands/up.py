"""`manage.py up`: prepare and start a development server; safe to repeat."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from accounts.audit.record import record
from accounts.authentication.passwords.hashers import prehashed_password
from accounts.management.arguments import ACTOR
from accounts.management.errors import database_remedy
from accounts.models import Role, RoleAssignment, SigningKey, User

PASSWORD_BYTES = 15


class Command(BaseCommand):
    """Prepare the database and replace this process with the server."""

    help = "Migrate, make keys and the first admin, then serve (development)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--prepare-only", action="store_true", help="Stop before serving."
        )
        parser.add_argument(
            "--reload", action="store_true", help="Restart when a file changes."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # Other accounts of this host must not read files of this process.
        os.umask(0o077)
        if settings.ENVIRONMENT == "production":
            raise CommandError(
                "`up` is for development only. In production run migrate and uvicorn; "
                "see docs/production.md."
            )
        if not options["prepare_only"]:
            self.check_port()
        try:
            self.prepare()
        except OperationalError as error:
            raise CommandError(database_remedy(error)) from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        if not options["prepare_only"]:
            self.serve(reload=options["reload"])

    def check_port(self) -> None:
        """Fail before the long preparation if another process listens."""
        family = socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.HOST.strip("[]"), settings.PORT))
            except OSError as error:
                raise CommandError(listen_remedy(error)) from error

    def prepare(self) -> None:
        executor = MigrationExecutor(connection)
        targets = executor.loader.graph.leaf_nodes()
        if executor.migration_plan(targets):
            self.stdout.write("Preparing the database ...")
            call_command("migrate", verbosity=0, interactive=False)
        if uncollected():
            call_command("collectstatic", verbosity=0, interactive=False)
        SigningKey.objects.ensure_active()
        self.first_admin()

    def first_admin(self) -> None:
        """Create one if there is none, from DJANGO_SUPERUSER_* or a random password."""
        superusers = User.objects.filter(is_superuser=True)
        if superusers.exists():
            return
        name = os.environ.get("DJANGO_SUPERUSER_USERNAME") or "admin"
        configured = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
        email = os.environ.get("DJANGO_SUPERUSER_EMAIL", "")
        password = configured or secrets.token_urlsafe(PASSWORD_BYTES)
        with prehashed_password(password), transaction.atomic():
            if superusers.exists():
                return
            user = User.objects.create_superuser(name, email, password)
            assignment, _new = RoleAssignment.objects.grant(
                user, Role.objects.get(name="Admin"), reason="first admin"
            )
            record("role.granted", actor=ACTOR, object=assignment, reason="first admin")
        self.print_admin(name, "" if configured else password)

    def print_admin(self, name: str, password: str) -> None:
        """Print a generated password once; one from the environment is not printed."""
        self.stdout.write(f"\n  First admin   {name}")
        if password:
            self.stdout.write(f"  Password      {password}   (shown this once)")

    def serve(self, *, reload: bool = False) -> None:
        """Print the URLs, then exec uvicorn, so that signals reach it."""
        self.stdout.write(start_message())
        self.stdout.flush()
        command = [sys.executable, "-m", "uvicorn", "config.asgi:application"]
        command += ["--host", settings.HOST.strip("[]"), "--port", str(settings.PORT)]
        if reload:
            command += ["--reload", *reload_folders()]
        else:
            command += ["--workers", str(settings.WORKERS)]
        command += ["--no-server-header"]
        command += [
            "--no-proxy-headers",
            "--http",
            "config.server.timeouts:TimeoutProtocol",
        ]
        command += ["--no-access-log", "--log-level", "warning", "--lifespan", "on"]
        command += ["--loop", "config.server.event_loop:AcceptingLoop"]
        command += ["--timeout-graceful-shutdown", "5"]
        connection.close()
        os.execv(sys.executable, command)  # noqa: S606


def reload_folders() -> list[str]:
    """uvicorn's options for Portico's folder and those of the apps in EXTRA_APPS."""
    folders = {str(settings.BASE_DIR)}
    for config in apps.get_app_configs():
        name = f"{type(config).__module__}.{type(config).__name__}"
        if {config.name, name} & set(settings.EXTRA_APPS):
            folders.add(config.path)
    return [part for folder in sorted(folders) for part in ("--reload-dir", folder)]


def uncollected() -> bool:
    """Whether a static file is newer than the collected ones, as after an upgrade."""
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    if not manifest.exists():
        return True
    collected = manifest.stat().st_mtime
    return any(
        Path(storage.path(name)).stat().st_mtime > collected
        for finder in get_finders()
        for name, storage in finder.list([])
    )


def start_message() -> str:
    """The URLs, and how a client connects."""
    issuer, resource = settings.ISSUER_URL, settings.RESOURCE_URL
    return f"""
  Admin         {issuer}/admin/
  MCP           {resource}
  Connect       {issuer}/portal/connect/
  A token       curl {issuer}/api/token/ -d username=NAME -d password=PASSWORD
  A client      claude mcp add --transport http portico {resource}
"""


def listen_remedy(error: OSError) -> str:
    """One sentence that suggests another PORT or HOST."""
    address = f"{settings.HOST}:{settings.PORT} is not available ({error.strerror})"
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        return f"{address}; choose another: PORT={settings.PORT % 65535 + 1} make serve"
    return f"{address}; set HOST to an address of this machine, such as 127.0.0.1."
