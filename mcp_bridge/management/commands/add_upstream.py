"""`manage.py add_upstream NAME URL [--header-from-env HEADER=VAR] [--accept] ...`."""

from __future__ import annotations

import os
from typing import Any

from django.core.management import CommandError

from mcp_bridge.management.upstream_commands import (
    UpstreamCommand,
    accept_all,
    add,
    line_of,
    summary_of,
)
from mcp_bridge.models import CredentialMode, UpstreamCredential, UpstreamServer

AUTHENTICATION = UpstreamCredential.ClientAuthentication


class Command(UpstreamCommand):
    """Look at an MCP server, then save it; nothing is saved if it does not answer."""

    help = "Add an upstream MCP server; its definitions are held until accepted."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", help="A short name, for example github.")
        parser.add_argument("url", help="For example https://mcp.example.com/mcp.")
        parser.add_argument("--title", default="", help="The name that people see.")
        parser.add_argument("--prefix", help="Of its tools. Default: NAME.")
        parser.add_argument(
            "--accept", action="store_true", help="Accept what it offers now."
        )
        ways = parser.add_mutually_exclusive_group()
        ways.add_argument(
            "--header-from-env",
            metavar="HEADER=VAR",
            help="Send this header; its value is in the environment variable VAR.",
        )
        ways.add_argument(
            "--client-credentials",
            metavar="CLIENT_ID",
            help="Get tokens by OAuth client credentials.",
        )
        ways.add_argument(
            "--signed-assertion",
            action="store_true",
            help="Send a short JWT about the user, signed by Portico.",
        )
        parser.add_argument("--token-url", default="", help="The token endpoint.")
        parser.add_argument(
            "--secret-from-env",
            metavar="VAR",
            help="The client secret is in VAR. Without it: private_key_jwt.",
        )
        parser.add_argument("--scope", default="", help="Scopes to request.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        if UpstreamServer.objects.filter(name=name).exists():
            raise CommandError(f"An upstream server {name} exists already.")
        prefix = name if options["prefix"] is None else options["prefix"]
        mode, credential, secret = credential_of(options)
        server = UpstreamServer(
            name=name,
            url=options["url"],
            title=options["title"],
            prefix=prefix,
            credential_mode=mode,
        )
        add(server, credential, secret)
        if options["accept"]:
            accept_all(server)
        shown = summary_of(server)
        lines = [line_of(shown)]
        if not options["accept"]:
            lines.append(f"Next: manage.py accept_definitions {name} --all")
        self.report(options, shown, lines)


def credential_of(
    options: dict[str, Any],
) -> tuple[CredentialMode, UpstreamCredential | None, str]:
    """Mode, credential and secret. Raises CommandError."""
    if options["header_from_env"]:
        header, _equals, variable = options["header_from_env"].partition("=")
        row = UpstreamCredential(header=header)
        return CredentialMode.STATIC_HEADER, row, from_environment(variable)
    if options["client_credentials"]:
        if not options["token_url"]:
            raise CommandError("Give the token endpoint: --token-url URL.")
        variable = options["secret_from_env"]
        method = AUTHENTICATION.BASIC if variable else AUTHENTICATION.PRIVATE_KEY_JWT
        row = UpstreamCredential(
            client_id=options["client_credentials"],
            token_url=options["token_url"],
            scope=options["scope"],
            client_authentication=method,
        )
        secret = from_environment(variable) if variable else ""
        return CredentialMode.CLIENT_CREDENTIALS, row, secret
    if options["signed_assertion"]:
        return CredentialMode.SIGNED_ASSERTION, None, ""
    return CredentialMode.NONE, None, ""


def from_environment(variable: str) -> str:
    """The value of an environment variable. Raises CommandError."""
    value = os.environ.get(variable, "")
    if not value:
        raise CommandError(f"The environment variable {variable or '(none)'} is empty.")
    return value
