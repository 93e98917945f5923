"""The `mcpServers` JSON that MCP clients have: http entries become upstream servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_bridge.models import CredentialMode

VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
HTTP_TYPES = ("", "http", "streamable-http", "streamableHttp")


class FileProblem(ValueError):
    """The whole file cannot be used; the text has the fix."""


@dataclass(frozen=True)
class FileEntry:
    """One server of the file; `problem` says why it cannot be added."""

    name: str
    url: str = ""
    header: str = ""
    secret: str = ""
    problem: str = ""
    skipped: bool = False
    """Whether it is of a kind that is not supported, rather than wrong."""

    @property
    def mode(self) -> CredentialMode:
        return CredentialMode.STATIC_HEADER if self.header else CredentialMode.NONE


def server_name_of(name: str) -> str:
    """A name for the server: lower case, at most 16 characters, no `__`."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return text[:16].strip("-")


def read_entries(raw: bytes, environment: Mapping[str, str]) -> list[FileEntry]:
    """The servers of a file, in its order. Raises FileProblem.

    `${VAR}`, `${env:VAR}` and `${VAR:-default}` are read from `environment`.
    """
    try:
        content = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FileProblem(f"It is not JSON: {error}.") from error
    servers = None
    if isinstance(content, dict):
        servers = content.get("mcpServers", content.get("servers"))
    if not isinstance(servers, dict):
        raise FileProblem('It has no object "mcpServers".')
    return [file_entry(name, entry, environment) for name, entry in servers.items()]


def file_entry(name: str, entry: Any, environment: Mapping[str, str]) -> FileEntry:
    """One entry, with its variables replaced."""
    if not isinstance(entry, dict):
        return FileEntry(name, problem="It is not an object.")
    if "command" in entry:
        text = "It starts a command; only http servers can be added."
        return FileEntry(name, problem=text, skipped=True)
    kind, url = entry.get("type", ""), entry.get("url", entry.get("serverUrl"))
    if kind not in HTTP_TYPES:
        text = f"Its type is {str(kind)[:20]}; only http servers can be added."
        return FileEntry(name, problem=text, skipped=True)
    if not isinstance(url, str):
        return FileEntry(name, problem="It has no url.")
    headers = entry.get("headers") or {}
    if not isinstance(headers, dict) or len(headers) > 1:
        return FileEntry(name, problem="It has several headers; one is supported.")
    values = [url, *(str(value) for value in headers.values())]
    unknown = sorted(
        {v for text in values for v in missing_variables(text, environment)}
    )
    if unknown:
        return FileEntry(name, problem=f"Set {', '.join(unknown)} in the environment.")
    url, *secrets = (with_variables(text, environment) for text in values)
    header, secret = "".join(map(str, headers)), "".join(secrets)
    return FileEntry(name, url, header, secret)


def missing_variables(text: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Variables of a text without a value; `${input:x}` never has one."""
    for match in VARIABLE.finditer(text):
        if match[2] is None and not environment.get(match[1]):
            yield match[1]
    yield from re.findall(r"\$\{input:[^}]*\}", text)


def with_variables(text: str, environment: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda m: environment.get(m[1]) or m[2] or "", text)
