"""`manage.py add_client NAME --redirect-uri URI ... [--public]`: from a script."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from accounts.audit import record
from accounts.management.lookups import ACTOR, user_named
from accounts.models import OAuthClient
from accounts.oauth.models import DEVICE_GRANT, SIGNED
from accounts.oauth.redirects import BadRedirect, checked_uri


class Command(BaseCommand):
    """Register a client that people see as put here by their administrator."""

    help = "Register an OAuth client; its secret is printed once."

    def add_arguments(self, parser: Any) -> None:
        """What it is and where it returns to."""
        parser.add_argument("name")
        parser.add_argument("--redirect-uri", action="append", default=[])
        parser.add_argument("--public", action="store_true", help="Without a secret.")
        parser.add_argument("--client-id", help="Default: a random one.")
        parser.add_argument(
            "--jwks", metavar="FILE", help="Its public keys: it signs, no secret."
        )
        parser.add_argument("--device", action="store_true", help="Device flow too.")
        parser.add_argument(
            "--service-account", metavar="USER", help="Acts as USER on its own."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, register, print as JSON."""
        uris, account = self.checked(options)
        known = options["client_id"] or secrets.token_hex(16)
        if OAuthClient.objects.filter(client_id=known).exists():
            raise CommandError(f"There is a client {known} already.")
        jwks = self.keys(options["jwks"])
        secret = "" if options["public"] or jwks else secrets.token_urlsafe(48)
        method = "none" if options["public"] else METHOD
        grants = ["authorization_code", "refresh_token"] if uris else []
        grants += [DEVICE_GRANT, "refresh_token"] if options["device"] else []
        client = OAuthClient(
            client_id=known,
            name=options["name"],
            redirect_uris=" ".join(uris),
            client_type="public" if options["public"] else "confidential",
            token_endpoint_auth_method=SIGNED if jwks else method,
            client_jwks=jwks,
            authorization_grant_type=OAuthClient.GRANT_AUTHORIZATION_CODE,
            client_secret=secret,
            grant_types=grants + (["client_credentials"] if account else []),
            service_account=account,
        )
        client.save()
        record("client.registered", actor=ACTOR, object=f"client {client}")
        told = {"client_id": client.client_id}
        self.stdout.write(
            json.dumps(told | ({"client_secret": secret} if secret else {}))
        )

    def checked(self, options: dict[str, Any]) -> tuple[list[str], Any]:
        """Redirect URIs and service account. Raises CommandError."""
        try:
            uris = [checked_uri(uri) for uri in options["redirect_uri"]]
        except BadRedirect as error:
            raise CommandError(str(error)) from error
        account = options["service_account"]
        if account and options["public"]:
            raise CommandError("A client that acts on its own needs a secret.")
        if not uris and not account and not options["device"]:
            raise CommandError("Give a --redirect-uri, --device or --service-account.")
        return uris, user_named(account) if account else None

    def keys(self, path: str | None) -> dict[str, Any]:
        """The JWK Set in a file. Raises CommandError."""
        if path is None:
            return {}
        try:
            found = json.loads(Path(path).read_text())
            private = [key for key in found["keys"] if "d" in key]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{path} is no JWK Set: {error}") from error
        if private or not found["keys"]:
            raise CommandError(f"{path} has to hold public keys, and only such.")
        return {"keys": found["keys"]}


METHOD = "client_secret_basic"
