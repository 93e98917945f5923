"""What the commands about upstream servers share."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import CommandError
from django.db import transaction

from accounts.management.arguments import ACTOR
from accounts.management.listing import ListingCommand
from mcp_bridge.access import definitions
from mcp_bridge.models import (
    CredentialMode,
    DefinitionState,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from mcp_bridge.upstreams.registration.servers import (
    check_header,
    save_new,
    whole_header,
)


class UpstreamCommand(ListingCommand):
    """A command about upstream servers, with `--json`."""


def server_named(name: str) -> UpstreamServer:
    """The server. Raises CommandError."""
    server = UpstreamServer.objects.filter(name=name).first()
    if server is None:
        names = ", ".join(UpstreamServer.objects.values_list("name", flat=True))
        raise CommandError(
            f"There is no upstream server {name}; there are: {names or 'none'}"
        )
    return server


def add(
    server: UpstreamServer, credential: UpstreamCredential | None, secret: str
) -> dict[str, int]:
    """Look at a server and save it with what it offers; returns the counts.

    Raises CommandError, and nothing is saved then.
    """
    try:
        if server.credential_mode == CredentialMode.STATIC_HEADER and credential:
            secret = whole_header(credential.header, secret)
            check_header(credential.header, secret)
        server.full_clean()
        if credential is not None:
            credential.clean_fields(exclude=["upstream", "user"])
            credential.secret = secret  # type: ignore[attr-defined]
        seen = discovery.look(server, credential)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error
    except UpstreamProblem as problem:
        raise CommandError(f"Nothing was saved. {problem.text}") from problem
    with transaction.atomic():
        save_new(server, credential, secret, actor=ACTOR, via="command")
        return discovery.store(server, seen)


def accept_all(server: UpstreamServer) -> list[Primitive]:
    """Accept everything of a server that waits."""
    rows = definitions.waiting().filter(upstream=server, problem="")
    return definitions.accept(rows, actor=ACTOR, via="command")


def summary_of(server: UpstreamServer) -> dict[str, Any]:
    """A server as JSON, without secrets."""
    status = UpstreamStatus.objects.filter(upstream=server).first()
    states = list(server.primitives.values_list("state", flat=True))
    return {
        "name": server.name,
        "url": server.url,
        "prefix": server.prefix,
        "enabled": server.enabled,
        "credential": server.credential_mode,
        "protocol": status.protocol if status else "",
        "server": f"{status.server_name} {status.server_version}" if status else "",
        "last_contact": status.contacted_at if status else None,
        "error": status.error if status else "",
        **{str(state): states.count(state) for state in DefinitionState.values},
    }


def line_of(summary: dict[str, Any]) -> str:
    """The same on one line."""
    counts = ", ".join(
        f"{summary[state]} {state}"
        for state in DefinitionState.values
        if summary[state]
    )
    state = "" if summary["enabled"] else " (disabled)"
    error = f"; {summary['error']}" if summary["error"] else ""
    return f"{summary['name']}{state}: {summary['url']}; {counts or 'nothing'}{error}"
