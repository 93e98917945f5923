"""`manage.py add_client NAME --redirect-uri URI ... [--public]`."""

from __future__ import annotations

import json
import re
import secrets
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import transaction

from accounts.audit.record import record
from accounts.errors import InvalidRedirectURI
from accounts.management.arguments import ACTOR, short, user_named
from accounts.models import OAuthClient, User
from accounts.models.oauth import CLIENT_CREDENTIALS, DEVICE_GRANT, PRIVATE_KEY_JWT
from accounts.oauth.redirect_uris import validate_redirect_uri
from accounts.tokens import assertions


class Command(BaseCommand):
    """Register a client; the consent page shows it as added by an administrator."""

    help = "Register an OAuth client and print its secret once."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", type=short, help="The name that users see.")
        parser.add_argument(
            "--redirect-uri",
            action="append",
            default=[],
            metavar="URI",
            help="Where users return after sign-in; repeatable.",
        )
        parser.add_argument(
            "--public", action="store_true", help="A client without a secret."
        )
        parser.add_argument("--client-id", type=client_id, help="Default: a random id.")
        parser.add_argument(
            "--jwks",
            metavar="FILE",
            help="JWK Set of a client that uses private_key_jwt.",
        )
        parser.add_argument(
            "--device", action="store_true", help="Allow the device flow."
        )
        parser.add_argument(
            "--service-account",
            metavar="USER",
            help="Allow client_credentials as USER.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        uris, account = self.validate(options)
        identifier = options["client_id"] or secrets.token_hex(16)
        if OAuthClient.objects.filter(client_id=identifier).exists():
            raise CommandError(f"A client {identifier} exists already.")
        jwks = self.keys(options["jwks"])
        secret = "" if options["public"] or jwks else secrets.token_urlsafe(48)
        method = "none" if options["public"] else METHOD
        grants = ["authorization_code", "refresh_token"] if uris else []
        grants += [DEVICE_GRANT, "refresh_token"] if options["device"] else []
        client = OAuthClient(
            client_id=identifier,
            name=options["name"],
            redirect_uris=" ".join(uris),
            client_type="public" if options["public"] else "confidential",
            token_endpoint_auth_method=PRIVATE_KEY_JWT if jwks else method,
            client_jwks=jwks,
            authorization_grant_type=OAuthClient.GRANT_AUTHORIZATION_CODE,
            client_secret=secret,
            grant_types=grants + ([CLIENT_CREDENTIALS] if account else []),
            service_account=account,
        )
        if problems := client.problems():
            raise CommandError(" ".join(map(str, problems.values())))
        with transaction.atomic():
            client.save()
            record(
                "client.registered",
                actor=ACTOR,
                object=f"client {client}",
                subject=client,
                client_id=client.client_id,
            )
        output = {"client_id": client.client_id}
        self.stdout.write(
            json.dumps(output | ({"client_secret": secret} if secret else {}))
        )

    def validate(self, options: dict[str, Any]) -> tuple[list[str], Any]:
        """Redirect URIs and service account. Raises CommandError."""
        try:
            uris = [validate_redirect_uri(uri) for uri in options["redirect_uri"]]
        except InvalidRedirectURI as error:
            raise CommandError(str(error)) from error
        if not options["name"].strip():
            raise CommandError("Give the client a name; users see it.")
        account = options["service_account"]
        if options["public"] and options["jwks"]:
            raise CommandError("A public client has no key: omit --public or --jwks.")
        if not uris and not account and not options["device"]:
            raise CommandError("Give a --redirect-uri, --device or --service-account.")
        return uris, service_account(account) if account else None

    def keys(self, path: str | None) -> dict[str, Any]:
        """The JWK Set in a file. Raises CommandError."""
        if path is None:
            return {}
        try:
            return assertions.public_keys(json.loads(Path(path).read_text()))
        except (OSError, ValueError, RecursionError) as error:
            raise CommandError(f"{path} is not a JWK Set: {error}") from error


def service_account(name: str) -> User:
    """The account of a program. Raises CommandError for a person."""
    user = user_named(name)
    if not user.is_service_account:
        raise CommandError(
            f"{name} is a person. Add an account for the program: "
            f"manage.py add_user NAME --service-account"
        )
    return user


def client_id(text: str) -> str:
    """A client id: VSCHAR without blanks (RFC 6749 A.1), no URL (CIMD 6.9)."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", text) or text.startswith("https://"):
        raise ArgumentTypeError("write 1 to 255 printable ASCII characters, but no URL")
    return text


METHOD = "client_secret_basic"
