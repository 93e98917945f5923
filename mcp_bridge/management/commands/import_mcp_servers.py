"""`manage.py import_mcp_servers FILE [--accept]`."""

from __future__ import annotations

import os
from typing import Any

from django.core.management import CommandError

from accounts.management.arguments import file_named
from mcp_bridge.management.upstream_commands import UpstreamCommand, accept_all, add
from mcp_bridge.models import UpstreamCredential, UpstreamServer
from mcp_bridge.upstreams.registration.mcp_servers_file import (
    FileEntry,
    FileProblem,
    read_entries,
    server_name_of,
)


class Command(UpstreamCommand):
    """Each entry is added or reported by itself; exit code 1 if one is wrong."""

    help = "Add the http servers of an mcpServers JSON file."

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", help="For example .mcp.json or mcp.json.")
        parser.add_argument(
            "--accept", action="store_true", help="Accept what they offer now."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            entries = read_entries(file_named(options["file"]), os.environ)
        except FileProblem as error:
            raise CommandError(f"{options['file']}: {error}") from error
        found = [self.result_of(entry, options["accept"]) for entry in entries]
        lines = [f"{one['name']}: {one['problem'] or 'added'}" for one in found]
        self.report(options, found, lines or ["The file has no servers."])
        if any(one["result"] == "failed" for one in found):
            raise CommandError("Not every server was added.")

    def result_of(self, entry: FileEntry, accept: bool) -> dict[str, str]:
        """`added`, `skipped` or `failed`, with the reason."""
        name, problem = server_name_of(entry.name), entry.problem
        result = "skipped" if entry.skipped else "failed"
        if not problem and UpstreamServer.objects.filter(name=name).exists():
            problem, result = "It exists already.", "skipped"
        if not problem:
            problem = added(entry, name, accept)
        result = result if problem else "added"
        return {"name": name or entry.name, "result": result, "problem": problem}


def added(entry: FileEntry, name: str, accept: bool) -> str:
    """Why the entry could not be added; empty after it was."""
    server = UpstreamServer(
        name=name, url=entry.url, prefix=name, credential_mode=entry.mode
    )
    row = UpstreamCredential(header=entry.header) if entry.header else None
    try:
        add(server, row, entry.secret)
    except CommandError as error:
        return str(error)
    if accept:
        accept_all(server)
    return ""
