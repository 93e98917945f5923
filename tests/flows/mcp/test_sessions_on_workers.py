"""Sessions of the 2025 protocols on three processes: any of them serves any message."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.test import override_settings
from django.utils import timezone

from accounts.models import IssuedToken, RoleAssignment, User
from accounts.tokens.issue import issue_tokens
from mcp_bridge.models import ClientSession, SessionMessage
from tests.flows.consistency.test_consistency import ORIGIN
from tests.support.mcp_client import HTTP, LEGACY, McpClient, message_in
from tests.support.server import Portico, running_server

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("default_users")]
ONE_OF_THREE = {"PROCESSES": "1", "WORKERS": "3", "ISSUER_URL": ORIGIN}
CAPABLE: dict[str, Any] = {"elicitation": {"form": {}}}


@pytest.fixture(scope="module")
def processes(rows: None, folder: Path) -> Iterator[list[Portico]]:
    """Three processes on one database; nothing else is shared."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_server(folder, **ONE_OF_THREE))
            for _ in range(3)
        ]


def token(who: str) -> str:
    """A token that all processes accept."""
    with override_settings(ISSUER_URL=ORIGIN, RESOURCE_URL=f"{ORIGIN}/mcp"):
        user = User.objects.get(username=who)
        return issue_tokens(user, issued_via="password", scope="mcp").access


def opened(server: Portico, who: str = "alice", **agreed: Any) -> McpClient:
    """A client with a session that this process opened."""
    client = McpClient(server, token(who), LEGACY)
    hello = {"protocolVersion": LEGACY, "capabilities": CAPABLE, **agreed}
    info = {"name": "wire", "version": "1"}
    response = client.post("initialize", {**hello, "clientInfo": info})
    assert response.status_code == 200, response.text
    client.session = response.headers["mcp-session-id"]
    return client


def at(server: Portico, client: McpClient) -> McpClient:
    """The same client, which happens to reach this process."""
    return replace(client, server=server)


def raw_post(client: McpClient, body: dict[str, Any]) -> httpx2.Response:
    headers = client.headers(str(body.get("method", "")), {})
    message = {"jsonrpc": "2.0", **body}
    return HTTP.post(client.server.mcp_url, json=message, headers=headers)


def end(client: McpClient) -> int:
    headers = client.headers("", {})
    return HTTP.delete(client.server.mcp_url, headers=headers).status_code


class Calling(threading.Thread):
    """A call whose response is read in the background."""

    numbers = count(1000)

    def __init__(self, client: McpClient, tool: str, **arguments: Any) -> None:
        super().__init__(daemon=True)
        self.client, self.id = client, next(self.numbers)
        params = {"name": tool, "arguments": arguments}
        self.body = {"id": self.id, "method": "tools/call", "params": params}
        self.lines: list[str] = []
        self.status = 0
        self.start()

    def run(self) -> None:
        client = self.client
        headers = client.headers("tools/call", {})
        body = {"jsonrpc": "2.0", **self.body}
        with httpx2.Client(timeout=60, verify=False) as http:
            with http.stream(
                "POST", client.server.mcp_url, json=body, headers=headers
            ) as response:
                self.status = response.status_code
                for line in response.iter_lines():
                    self.lines.append(line)

    def messages(self) -> list[dict[str, Any]]:
        data = [line.removeprefix("data: ") for line in self.lines if "{" in line]
        return [json.loads(each) for each in data]

    def until(self, method: str) -> dict[str, Any]:
        """The first message with this method; "" for the answer."""
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            for each in self.messages():
                if each.get("method", "") == method:
                    return each
            time.sleep(0.02)
        raise AssertionError(self.lines)


def test_every_process_answers_every_message(processes: list[Portico]) -> None:
    client = opened(processes[0])
    for server, number in zip(cycle(processes), range(12), strict=False):
        reply = at(server, client).call("look", what=str(number))
        assert reply.status_code == 200, reply.text
        text = message_in(reply)["result"]["content"][0]["text"]
        assert text == f"alice looks at {number}"
        assert reply.headers["mcp-session-id"] == client.session


def test_an_ended_session_is_unknown_everywhere_at_once(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    for _ in range(5):
        assert {at(s, client).post("ping").status_code for s in processes} == {200}
        other = opened(processes[1])
        assert end(at(processes[1], other)) == 200
        assert {at(s, other).post("ping").status_code for s in processes} == {404}
        assert {end(at(s, other)) for s in processes} == {404}
    assert end(client) == 200
    assert {at(s, client).post("ping").status_code for s in processes} == {404}


def test_a_session_of_somebody_else_is_unknown_everywhere(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    bob = McpClient(processes[1], token("bob"), LEGACY, client.session)
    assert {at(s, bob).post("ping").status_code for s in processes} == {404}
    assert {end(at(s, bob)) for s in processes} == {404}
    assert {at(s, client).post("ping").status_code for s in processes} == {200}


def test_an_expired_session_is_unknown_everywhere(processes: list[Portico]) -> None:
    client = opened(processes[0])
    ClientSession.objects.filter(user__username="alice").update(expires_at=past())
    codes = {at(s, client).post("ping").status_code for s in processes[1:]}
    assert codes == {404}


def past() -> datetime:
    return timezone.now() - timedelta(seconds=1)


def test_a_change_of_access_applies_to_the_next_message(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    assert all(at(s, client).allowed("look") for s in processes)
    RoleAssignment.objects.filter(user__username="alice").delete()
    assert not any(at(s, client).allowed("look") for s in processes)
    IssuedToken.objects.filter(user__username="alice").revoke(
        actor="carol", reason="over"
    )
    assert {at(s, client).post("ping").status_code for s in processes} == {401}


def test_a_call_is_cancelled_from_another_process(processes: list[Portico]) -> None:
    client = opened(processes[0])
    other = opened(processes[1])
    call = Calling(client, "ponder", seconds=30)
    time.sleep(1)
    cancel = {"method": "notifications/cancelled", "params": {"requestId": call.id}}
    assert raw_post(at(processes[1], other), cancel).status_code == 202
    time.sleep(0.5)
    assert call.is_alive(), "of another session"
    began = time.monotonic()
    assert raw_post(at(processes[2], client), cancel).status_code == 202
    answer = call.until("")
    assert answer["error"]["code"] == -32800 and time.monotonic() - began < 3


def test_a_question_is_answered_through_another_process(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    passed_on = SessionMessage.objects.filter(channel__endswith="/in")
    before = passed_on.count()
    call = Calling(at(processes[1], client), "inquire", question="Who?")
    asked = call.until("elicitation/create")
    assert asked["params"]["message"] == "Who?"
    content = {"action": "accept", "content": {"name": "Ann"}}
    other = opened(processes[0])
    for wrong in (at(processes[0], other), at(processes[1], other)):
        assert (
            raw_post(wrong, {"id": asked["id"], "result": content}).status_code == 202
        )
    time.sleep(0.5)
    assert call.is_alive(), "another session cannot answer"
    answer = {"id": asked["id"], "result": content}
    assert raw_post(at(processes[2], client), answer).status_code == 202
    text = call.until("")["result"]["content"][0]["text"]
    assert text == "accept name='Ann'"
    for _ in range(3):
        raw_post(at(processes[2], client), answer)
    time.sleep(0.2)
    assert passed_on.count() == before + 1, "one answer to a question"


def test_a_broken_response_is_resumed_at_another_process(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    headers = client.headers("tools/call", {})
    params = {"name": "ponder", "arguments": {"seconds": 4}}
    body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params}
    with httpx2.Client(timeout=30, verify=False) as http:
        with http.stream(
            "POST", client.server.mcp_url, json=body, headers=headers
        ) as response:
            lines = response.iter_lines()
            event = next(line for line in lines if line.startswith("id: "))
    last = {**client.headers("", {}), "last-event-id": event.removeprefix("id: ")}
    for server in processes[1:]:
        with HTTP.stream("GET", server.mcp_url, headers=last) as response:
            assert response.status_code == 200
            found = [x for x in response.iter_lines() if x.startswith("data: {")]
        answer = json.loads(found[-1].removeprefix("data: "))
        assert answer["id"] == 5
        assert answer["result"]["content"][0]["text"] == "pondered"
    bob = opened(processes[1], "bob")
    theirs = {**bob.headers("", {}), "last-event-id": last["last-event-id"]}
    with HTTP.stream("GET", processes[1].mcp_url, headers=theirs, timeout=1) as got:
        with pytest.raises(httpx2.TimeoutException):
            assert "pondered" not in "".join(got.iter_lines())


def test_a_resumed_response_is_withheld_if_access_has_ended(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    call = Calling(client, "ponder", seconds=2)
    call.until("")
    event = next(line for line in call.lines if line.startswith("id: "))
    RoleAssignment.objects.filter(user__username="alice").delete()
    last = {**client.headers("", {}), "last-event-id": event.removeprefix("id: ")}
    with HTTP.stream("GET", processes[1].mcp_url, headers=last, timeout=1) as got:
        with pytest.raises(httpx2.TimeoutException):
            assert "pondered" not in "".join(got.iter_lines())


def test_every_process_serves_the_clients_stream(
    processes: list[Portico],
) -> None:
    client = opened(processes[0])
    with HTTP.stream(
        "GET", processes[1].mcp_url, headers=client.headers("", {})
    ) as stream:
        lines = stream.iter_lines()
        RoleAssignment.objects.filter(user__username="alice").delete()
        told = next(line for line in lines if line.startswith("data: "))
        assert re.search(r"notifications/\w+/list_changed", told)


def test_a_killed_process_takes_no_session_with_it(
    processes: list[Portico], folder: Path, default_users: None
) -> None:
    with running_server(folder, **ONE_OF_THREE) as dying:
        client = opened(dying)
        assert at(processes[0], client).call("look").status_code == 200
        dying.stop(signal.SIGKILL)
        for server in processes:
            assert at(server, client).call("look").status_code == 200
    assert User.objects.filter(username="alice").exists()
