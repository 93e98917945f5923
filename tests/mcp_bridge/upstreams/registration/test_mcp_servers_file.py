"""The mcpServers JSON of clients."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_bridge.upstreams.registration.mcp_servers_file import (
    FileEntry,
    FileProblem,
    read_entries,
    server_name_of,
)

URL = "https://a.example/mcp"


def entry(content: Any, **environment: str) -> FileEntry:
    raw = json.dumps({"mcpServers": {"Shop": content}}).encode()
    (found,) = read_entries(raw, environment)
    return found


def test_http_entries_and_their_variables_are_read() -> None:
    headers = {"Authorization": "Bearer ${env:KEY}"}
    found = entry({"type": "http", "url": URL, "headers": headers}, KEY="k")
    assert found == FileEntry("Shop", URL, "Authorization", "Bearer k")
    assert entry({"url": "https://${HOST:-a.example}/mcp"}).url == URL


@pytest.mark.parametrize(
    ("content", "problem", "skipped"),
    [
        ({"command": "npx"}, "starts a command", True),
        ({"type": "sse", "url": URL}, "type is sse", True),
        ({"url": 5}, "no url", False),
        ([], "not an object", False),
        ({"url": URL, "headers": {"A": "1", "B": "2"}}, "several headers", False),
        ({"url": URL, "headers": ["A"]}, "several headers", False),
        ({"url": URL, "headers": {"A": "${KEY}"}}, "Set KEY in", False),
        ({"url": URL, "headers": {"A": "${input:key}"}}, "Set ${input:key}", False),
    ],
)
def test_other_entries_say_why(content: Any, problem: str, skipped: bool) -> None:
    found = entry(content)
    assert problem in found.problem and found.skipped == skipped


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'{"mcpServers": []}', b"\xff", b"[" * 200_000]
)
def test_another_file_is_refused(raw: bytes) -> None:
    with pytest.raises(FileProblem):
        read_entries(raw, {})


@pytest.mark.parametrize(
    ("name", "short"),
    [("GitHub", "github"), ("my__Server!", "my-server"), ("a" * 15 + "-b", "a" * 15)],
)
def test_names_become_short_and_plain(name: str, short: str) -> None:
    assert server_name_of(name) == short


def test_other_spellings_of_the_same_file_are_read() -> None:
    """With a byte order mark, `servers` as VS Code has it, and `serverUrl`."""
    content = {"servers": {"A": {"serverUrl": URL, "type": "streamableHttp"}}}
    (found,) = read_entries(b"\xef\xbb\xbf" + json.dumps(content).encode(), {})
    assert found == FileEntry("A", URL)


def test_a_variable_comes_before_its_default() -> None:
    """An empty one counts as missing."""
    text = {"url": "https://${HOST:-b.example}/mcp"}
    assert entry(text, HOST="a.example").url == URL
    assert entry(text, HOST="").url == "https://b.example/mcp"
    assert entry({"url": "${HOST}"}, HOST="").problem == "Set HOST in the environment."
