"""The commands about upstream servers, and a call of what they accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEvent
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.mcp_client import McpClient, message_in
from tests.support.server import Portico
from tests.support.upstream_servers import RunningUpstream, running_upstream

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningUpstream]:
    with running_upstream() as running:
        yield running


@pytest.fixture(autouse=True)
def none_left(server: Portico) -> Iterator[None]:
    """Loopback is allowed while the issuer is there."""
    with server.settings():
        yield
    UpstreamServer.objects.all().delete()


def printed(*command: str) -> Any:
    out = StringIO()
    call_command(*command, "--json", stdout=out)
    return json.loads(out.getvalue())


def actions_since(last: int) -> list[str]:
    found = AuditEvent.objects.filter(pk__gt=last).exclude(action__startswith="tool.")
    return sorted(set(found.values_list("action", flat=True)))


def called(server: Portico, tool: str, **arguments: Any) -> dict[str, Any]:
    alice = McpClient(server, server.token("alice"))
    params = {"name": tool, "arguments": arguments}
    answer = message_in(alice.post("tools/call", params))
    return dict(answer.get("result") or answer)


def test_from_a_url_to_a_call_and_back(
    server: Portico, upstream: RunningUpstream
) -> None:
    last = AuditEvent.objects.latest("pk").pk
    added = printed("add_upstream", "acme", upstream.url)
    assert (added["held"], added["accepted"], added["protocol"]) == (7, 0, "2026-07-28")
    assert "Unknown tool" in json.dumps(called(server, "acme__add", a=1, b=2))
    accepted = ("accept_definitions", "acme", "add", "--role", "User")
    assert printed(*accepted) == {"accepted": ["acme__add"], "given": 1}
    assert called(server, "acme__add", a=1, b=2)["structuredContent"] == {"result": 3}
    assert "Unknown tool" in json.dumps(called(server, "acme__fail"))
    assert [one["name"] for one in printed("list_upstreams")] == ["acme"]
    assert printed("discover", "acme")[0]["error"] == ""
    removed = printed("remove_upstream", "acme")
    assert removed == {"removed": "acme", "definitions": 7}
    assert "Unknown tool" in json.dumps(called(server, "acme__add", a=1, b=2))
    assert {"upstream.added", "upstream.removed"} & set(actions_since(last))


def test_a_file_of_servers_is_imported(
    server: Portico, upstream: RunningUpstream, tmp_path: Path
) -> None:
    entries = {
        "Good One": {"type": "http", "url": upstream.url},
        "local": {"command": "npx", "args": ["x"]},
    }
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": entries}))
    found = {
        one["name"]: one["result"] for one in printed("import_mcp_servers", str(file))
    }
    assert sorted(found.values()) == ["added", "skipped"]
    assert UpstreamServer.objects.count() == 1
    assert Primitive.objects.filter(upstream__isnull=False, state="held").count() == 7


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("add_upstream", "acme", "ftp://x.example/mcp"), "is not a URL"),
        (("add_upstream", "acme", "http://127.0.0.1:9/mcp"), "Nothing was saved"),
        (("add_upstream", "acme", "http://10.0.0.1/mcp"), "UPSTREAM_PRIVATE_NETWORKS"),
        (("accept_definitions", "none", "--all"), "no upstream server none"),
        (("remove_upstream", "none"), "no upstream server none"),
        (("discover", "none"), "no upstream server none"),
        (("import_mcp_servers", "/none.json"), "none.json"),
    ],
)
def test_a_wrong_command_says_what_to_do(command: tuple[str, ...], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        call_command(*command, stdout=StringIO())
    assert not UpstreamServer.objects.exists()
