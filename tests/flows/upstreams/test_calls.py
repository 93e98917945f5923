"""Calls of upstream primitives over real HTTP: both eras on both sides."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accounts.models import AuditEvent
from mcp_bridge.models import (
    CredentialMode,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
)
from mcp_bridge.upstreams.credentials import set_secret
from tests.support.mcp_client import ERAS, LEGACY, MODERN, McpClient, message_in
from tests.support.server import Portico
from tests.support.upstream_servers import (
    RunningUpstream,
    accepted,
    running_upstream,
    upstream_row,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]

KINDS = {
    "modern": {},
    "sessions": {"legacy": True},
    "stateless": {"legacy": True, "stateless_http": True, "json_response": True},
}


@pytest.fixture(params=KINDS, scope="module")
def upstream(request: Any) -> Iterator[RunningUpstream]:
    with running_upstream(**KINDS[request.param]) as running:
        yield running


@pytest.fixture
def acme(upstream: RunningUpstream) -> Iterator[UpstreamServer]:
    server = upstream_row(upstream.url)
    for name in ("add", "count", "wait", "fail"):
        accepted(server, "tool", name)
    accepted(server, "resource", "up://text")
    accepted(server, "resource_template", "up://note/{name}")
    accepted(server, "prompt", "greet")
    yield server
    server.delete()


def client(server: Portico, era: str, user: str = "alice") -> McpClient:
    return McpClient(server, server.token(user), era).open()


def call(at: McpClient, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    answer = message_in(at.post("tools/call", params))
    return dict(answer.get("result") or answer)


def last_event() -> AuditEvent:
    time.sleep(0.2)
    found: AuditEvent = AuditEvent.objects.filter(action="tool.called").latest("pk")
    return found


@pytest.mark.parametrize("era", ERAS)
def test_a_call_is_relayed_and_recorded(
    server: Portico, acme: UpstreamServer, upstream: RunningUpstream, era: str
) -> None:
    alice = client(server, era)
    result = call(alice, "acme__add", a=2, b=3)
    assert result["content"] == [{"type": "text", "text": "5"}]
    assert result["structuredContent"] == {"result": 5}
    event = last_event()
    assert (event.object, event.outcome) == ("tool acme__add", "ok")
    assert "upstream acme" in event.via
    sent = [body for body in upstream.seen.bodies if body.get("method") == "tools/call"]
    assert sent[-1]["params"]["name"] == "add"
    assert not any(alice.token in json.dumps(one) for one in upstream.seen.headers)


@pytest.mark.parametrize("era", ERAS)
def test_the_other_kinds_are_relayed(
    server: Portico, acme: UpstreamServer, era: str
) -> None:
    alice = client(server, era)
    texts = []
    for uri in ("up://text", "up://note/one"):
        answer = message_in(alice.post("resources/read", {"uri": uri}))
        texts.append(answer["result"]["contents"][0]["text"])
    assert texts == ["upstream text", "note one"]
    params = {"name": "acme__greet", "arguments": {"name": "Ann"}}
    answer = message_in(alice.post("prompts/get", params))
    said = answer["result"]["messages"][0]["content"]["text"]
    assert said == "Say hello to Ann."


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_that_fails_is_an_error_in_the_audit(
    server: Portico, acme: UpstreamServer, era: str
) -> None:
    result = call(client(server, era), "acme__fail")
    assert result["isError"] is True
    assert last_event().outcome == "error"


@pytest.mark.parametrize("era", ERAS)
def test_progress_reaches_the_client_under_its_own_token(
    server: Portico, acme: UpstreamServer, upstream: RunningUpstream, era: str
) -> None:
    alice = client(server, era)
    params = {"name": "acme__count", "arguments": {"to": 3}}
    params["_meta"] = {"progressToken": "mine"}
    response = alice.post("tools/call", params)
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    # The first event of a stream that can be resumed has an id and no data.
    events = [json.loads(line[6:]) for line in lines if line[6:].strip()]
    progress = [
        e["params"] for e in events if e.get("method") == "notifications/progress"
    ]
    if "stateless_http" not in upstream.options:  # that one can send only the result
        assert [p["progress"] for p in progress] == [1, 2, 3]
        assert {p["progressToken"] for p in progress} == {"mine"}
    answer = message_in(response)
    assert answer["result"]["content"][0]["text"] == "counted to 3"


@pytest.mark.parametrize("era", ERAS)
def test_roles_states_and_switches_decide_the_next_message(
    server: Portico, acme: UpstreamServer, era: str
) -> None:
    alice, bob = client(server, era), client(server, era, "bob")
    hidden = call(bob, "acme__add", a=1, b=1)
    unknown = call(bob, "acme__nothing", a=1, b=1)
    assert json.dumps(hidden).replace("acme__add", "acme__nothing") == json.dumps(
        unknown
    )
    assert not call(alice, "acme__add", a=1, b=1).get("isError")
    UpstreamServer.objects.filter(pk=acme.pk).update(enabled=False)
    assert call(alice, "acme__add", a=1, b=1) == json.loads(
        json.dumps(call(alice, "acme__nothing")).replace("acme__nothing", "acme__add")
    )
    UpstreamServer.objects.filter(pk=acme.pk).update(enabled=True)
    Primitive.objects.filter(name="acme__add").update(calls_refused=True)
    refused = call(alice, "acme__add", a=1, b=1)
    assert refused["isError"] and "changed" in refused["content"][0]["text"]
    Primitive.objects.filter(name="acme__add").update(calls_refused=False)
    assert not call(alice, "acme__add", a=1, b=1).get("isError")


@pytest.mark.parametrize("era", ERAS)
def test_a_timeout_says_that_the_call_may_have_run(
    server: Portico, acme: UpstreamServer, era: str
) -> None:
    UpstreamServer.objects.filter(pk=acme.pk).update(call_timeout=1)
    result = call(client(server, era), "acme__wait", seconds=30)
    assert result["isError"] and "may have run" in result["content"][0]["text"]
    assert last_event().outcome == "may_have_run"


def test_a_static_header_and_nothing_of_the_caller_is_sent(
    server: Portico, acme: UpstreamServer, upstream: RunningUpstream
) -> None:
    mode = CredentialMode.STATIC_HEADER
    UpstreamServer.objects.filter(pk=acme.pk).update(credential_mode=mode)
    refused = call(client(server, MODERN), "acme__add", a=1, b=1)
    assert refused["isError"] and "credential" in refused["content"][0]["text"]
    credential = UpstreamCredential(upstream=acme, header="X-Api-Key")
    set_secret(credential, "s3cret")
    before = len(upstream.seen.headers)
    assert not call(client(server, LEGACY), "acme__add", a=1, b=1).get("isError")
    sent = upstream.seen.headers[before:]
    assert sent and all(one.get("x-api-key") == "s3cret" for one in sent)
    assert not any("authorization" in one or "cookie" in one for one in sent)


def test_a_signed_assertion_is_for_this_server_and_user(
    server: Portico, acme: UpstreamServer, upstream: RunningUpstream
) -> None:
    import base64

    mode = CredentialMode.SIGNED_ASSERTION
    UpstreamServer.objects.filter(pk=acme.pk).update(credential_mode=mode)
    assert not call(client(server, MODERN), "acme__add", a=1, b=1).get("isError")
    raw = upstream.seen.headers[-1]["authorization"].removeprefix("Bearer ")
    part = raw.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["aud"] == upstream.url and claims["iss"] == server.url
    assert claims["preferred_username"] == "alice"
    again = McpClient(server, raw, MODERN).post("tools/list")
    assert again.status_code == 401, "it is no token for Portico"
