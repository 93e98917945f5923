"""Access that ends while a message is sent, runs, or is answered."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from django.contrib.sessions.models import Session

from accounts.models import AuditEvent, IssuedToken, RoleAssignment, TokenKind, User
from accounts.tokens.issue import TokenPair
from mcp_bridge.models import Primitive
from mcp_bridge.server.concurrency_limits import THREADS_PER_USER
from tests.apps.shop import STARTED
from tests.support.html_browser import Browser
from tests.support.mcp_client import (
    ERAS,
    ERAS_ONCE,
    HTTP,
    LEGACY,
    META,
    MODERN,
    McpClient,
)
from tests.support.raw_load import HIDDEN, REFUSED, SERVED, RawConnection
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("default_users")
LOOK: dict[str, Any] = {"name": "look", "arguments": {}}
TAKEN = 0.2
"""Seconds after which a server has checked the token of a waiting request."""


def revoked(pair: TokenPair) -> None:
    rows = IssuedToken.objects.filter(pk=pair.row.pk)
    rows.revoke(actor=None, reason="test")


def deactivated(pair: TokenPair) -> None:
    User.objects.filter(pk=pair.row.user_id).update(is_active=False)


def elsewhere(pair: TokenPair) -> None:
    """The token's networks are changed."""
    IssuedToken.objects.filter(pk=pair.row.pk).update(networks="192.0.2.0/24")


def deleted(pair: TokenPair) -> None:
    IssuedToken.objects.filter(pk=pair.row.pk).delete()


def role_taken(pair: TokenPair) -> None:
    """The role with the tool is removed."""
    RoleAssignment.objects.filter(user=pair.row.user).delete()


ENDS: dict[Callable[[TokenPair], None], str] = {
    revoked: REFUSED,
    deactivated: REFUSED,
    elsewhere: REFUSED,
    deleted: REFUSED,
    role_taken: HIDDEN,
}
"""Way to end access -> the response to the next message."""


@contextmanager
def tool(name: str, **values: Any) -> Iterator[None]:
    """Change a tool's row, and restore it afterwards."""
    mine = Primitive.objects.filter(name=name)
    before = mine.values(*values).get()
    mine.update(**values)
    try:
        yield
    finally:
        mine.update(**before)


def holder(server: Portico, name: str, era: str) -> tuple[TokenPair, McpClient]:
    """A new user with a token and a client."""
    make_user(name, "User")
    pair = server.issued(name)
    return pair, McpClient(server, pair.access, era).open()


def message(
    client: McpClient, name: str, arguments: dict[str, Any], **meta: Any
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a call."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    headers = client.headers("tools/call", params)
    headers |= {"host": client.server.host, "content-type": "application/json"}
    if client.era == MODERN:
        about = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
        meta = {**about, **meta}
    if meta:
        params["_meta"] = meta
    whole = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    return headers, json.dumps(whole).encode()


def head(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode()


def partial_call(client: McpClient, framing: str) -> tuple[RawConnection, bytes]:
    """A call of `look` whose body arrived in part, and the missing part."""
    headers, body = message(client, "look", {})
    first, rest = body[:10], body[10:]
    if framing == "chunked":
        headers["transfer-encoding"] = "chunked"
        first, rest = (b"%x\r\n%s\r\n" % (len(part), part) for part in (first, rest))
        rest += b"0\r\n\r\n"
    else:
        headers["content-length"] = str(len(body))
    if framing == "expect":
        headers["expect"] = "100-continue"
        first, rest = b"", body
    line = RawConnection(client.server)
    line.send(head(headers) + first)
    return line, rest


@pytest.mark.spec("a message is decided after its whole body arrived")
@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("era", ERAS_ONCE)
def test_a_slow_body_is_decided_when_it_is_complete(
    server: Portico, era: str, framing: str
) -> None:
    """Open requests give a client no call after the end of its access."""
    waiting = []
    for end in ENDS:
        pair, client = holder(server, f"slow-{end.__name__}", era)
        waiting.append((end, pair, *partial_call(client, framing)))
    _, bystander = holder(server, "slow-bystander", era)
    other, missing = partial_call(bystander, framing)
    time.sleep(TAKEN)
    for end, pair, _line, _rest in waiting:
        end(pair)
    for end, _pair, line, rest in waiting:
        line.send(rest)
        if framing == "expect":
            assert line.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        assert line.answer() == ENDS[end], end.__name__
        line.close()
    other.send(missing)
    if framing == "expect":
        other.until(b"\r\n\r\n")
    assert other.answer() == SERVED
    other.close()


@pytest.mark.once
@pytest.mark.parametrize("era", ERAS)
def test_a_slow_body_uses_the_tools_current_state(server: Portico, era: str) -> None:
    """A disabled tool is hidden, a sensitive one needs a wider token."""
    for values, expected in (
        ({"enabled": False}, HIDDEN),
        ({"sensitive": True}, "403"),
    ):
        _, client = holder(server, "slow-tool", era)
        line, rest = partial_call(client, "length")
        time.sleep(TAKEN)
        with tool("look", **values):
            line.send(rest)
            assert expected in line.answer()
        line.close()


@pytest.mark.once
def test_a_head_alone_gets_its_401_without_a_body(server: Portico) -> None:
    """Without a valid token the server sends no 100 Continue and reads no body."""
    for expect in ({}, {"expect": "100-continue"}):
        client = McpClient(server, "e30.e30.e30")
        headers, body = message(client, "look", {})
        headers |= {"content-length": str(len(body)), **expect}
        line = RawConnection(server)
        started = time.monotonic()
        line.send(head(headers))
        assert line.answer() == REFUSED
        assert time.monotonic() - started < 2
        line.close()


def count_started(server: Portico) -> int:
    """How many slow tools have started on this server."""
    return server.log.read_text(errors="replace").count(STARTED)


def responses_after_end(
    server: Portico,
    era: str,
    name: str,
    seconds: float,
    **meta: Any,
) -> dict[str, tuple[float, httpx2.Response]]:
    """One call per way to end access, ended while it runs. Seconds and responses."""

    def called(end: Callable[[TokenPair], None]) -> tuple[float, httpx2.Response]:
        _pair, client = people[end]
        headers, body = message(client, name, {"seconds": seconds}, **meta)
        started = time.monotonic()
        answer = HTTP.post(server.mcp_url, content=body, headers=headers)
        return time.monotonic() - started, answer

    people = {end: holder(server, f"long-{end.__name__}", era) for end in ENDS}
    before = count_started(server)
    with ThreadPoolExecutor(len(people)) as crowd:
        found = {end: crowd.submit(called, end) for end in people}
        wait_until(lambda: count_started(server) >= before + len(people))
        for end, (pair, _client) in people.items():
            end(pair)
    return {end.__name__: call.result() for end, call in found.items()}


@pytest.mark.spec("a delayed answer is sent only if access still exists")
@pytest.mark.parametrize("name", ["ponder", "grind"])
def test_the_answer_of_a_call_is_withheld_after_access_ends(
    server: Portico, name: str
) -> None:
    """The refusal is the one that a new message gets."""
    last = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True)[0]
    found = responses_after_end(server, MODERN, name, 1.2)
    for end, expected in ENDS.items():
        answer = found[end.__name__][1]
        assert "ed" not in answer.text.partition('"text":"')[2][:8], answer.text
        if expected == REFUSED:
            assert answer.status_code == 401 and "www-authenticate" in answer.headers
        else:
            assert f"Unknown tool: {name}" in answer.text
    events = AuditEvent.objects.filter(pk__gt=last, object=f"tool {name}")
    assert [(e.action, e.outcome) for e in events] == [
        ("tool.called", "withheld")
    ] * len(ENDS)


@pytest.mark.once
@pytest.mark.parametrize("name", ["ponder", "grind"])
def test_a_long_call_ends_soon_after_access_ends(server: Portico, name: str) -> None:
    seconds = 8 if name == "grind" else 60
    for took, answer in responses_after_end(server, MODERN, name, seconds).values():
        assert took < 6
        assert answer.status_code == 401 or f"Unknown tool: {name}" in answer.text


@pytest.mark.once
@pytest.mark.spec("a streamed answer stops when access ends")
@pytest.mark.parametrize(
    ("era", "name", "meta"),
    [
        (MODERN, "climb", {"progressToken": "p"}),
        (MODERN, "ponder", {"progressToken": "p"}),
        (LEGACY, "climb", {"progressToken": "p"}),
        (LEGACY, "ponder", {}),
    ],
)
def test_a_streamed_answer_ends_when_access_ends(
    server: Portico, era: str, name: str, meta: dict[str, str]
) -> None:
    """Roles and tools count for streams as tokens do."""
    for took, answer in responses_after_end(server, era, name, 20, **meta).values():
        assert took < 6
        assert f"{name}ed" not in answer.text
        assert answer.text.count("notifications/progress") < 20


@pytest.mark.once
@pytest.mark.parametrize("era", ERAS)
def test_a_call_waiting_for_a_thread_is_not_run_after_access_ends(
    server: Portico, era: str
) -> None:
    """The decision is made when the call runs, not when it starts waiting."""
    pair, client = holder(server, "queued", era)
    crowd = McpClient(server, server.token("queued"))
    word = f"late-{era}"

    def ground(_number: int) -> int:
        headers, body = message(crowd, "grind", {"seconds": 2})
        return httpx2.post(
            server.mcp_url, content=body, headers=headers, timeout=30, verify=False
        ).status_code

    with ThreadPoolExecutor(60) as pool:
        before = count_started(server)
        busy = [pool.submit(ground, number) for number in range(40)]
        wait_until(lambda: count_started(server) >= before + THREADS_PER_USER)
        headers, body = message(client, "stamp", {"word": word})
        late = pool.submit(HTTP.post, server.mcp_url, content=body, headers=headers)
        time.sleep(TAKEN)
        revoked(pair)
        assert "stamped" not in late.result().text
        assert {call.result() for call in busy} == {200}
    assert word not in crowd.text("stamps")


@pytest.mark.once
def test_subscribers_get_only_events_they_may_read_now(
    server: Portico,
) -> None:
    """An access that ended half a second ago does not count."""
    from tests.flows.mcp.test_routing import listening

    pair, client = holder(server, "listener", MODERN)
    _, other = holder(server, "toucher", MODERN)
    method, options = listening(server, client)
    with HTTP.stream(method, server.mcp_url, **options) as stream:  # type: ignore[arg-type]
        lines = stream.iter_lines()
        assert any("acknowledged" in line for line in lines)
        other.call("touch", uri="shop://open")
        assert any("shop://open" in line for line in lines)
        time.sleep(TAKEN)
        role_taken(pair)
        other.call("touch", uri="shop://open")
        time.sleep(TAKEN)
        revoked(pair)
        assert not any("shop://open" in line for line in lines)


def send_slowly(server: Portico, request: bytes, during: Callable[[], Any]) -> str:
    """The status of a request whose last bytes are sent after `during`."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as line:
        line.sendall(request[:-5])
        time.sleep(TAKEN)
        during()
        line.sendall(request[-5:])
        return line.recv(65536).split(b" ")[1].decode()


def post(server: Portico, path: str, body: str, **headers: str) -> bytes:
    """The bytes of a form request."""
    fields = {
        "host": server.host,
        "content-type": "application/x-www-form-urlencoded",
        "content-length": str(len(body)),
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n{body}".encode()


@pytest.mark.once
def test_a_slow_form_is_decided_when_it_is_complete(server: Portico) -> None:
    """Django reads the body before it authenticates the sender."""
    user = make_user("dora", "User")
    request = post(server, "/api/token/", f"username=dora&password={PASSWORD}&x=1")
    assert send_slowly(server, request, lambda: None) == "200"
    close = User.objects.filter(pk=user.pk)
    status = send_slowly(server, request, lambda: close.update(is_active=False))
    assert status == "401"


@pytest.mark.once
def test_a_slow_form_of_an_ended_session_does_nothing(server: Portico) -> None:
    """Covers requests of a signed-in user."""
    user = make_user("dora", "User")
    others = set(Session.objects.values_list("pk", flat=True))
    with Browser(server.url) as visitor:
        visitor.sign_in("dora").open("/portal/tokens/")
        form = visitor.form("name")
        fields = {**form.fields, "name": "late"}
        cookies = "; ".join(f"{c.name}={c.value}" for c in visitor.http.cookies.jar)
        body = urlencode(fields, doseq=True)
        request = post(server, "/portal/tokens/", body, cookie=cookies)
        session = Session.objects.exclude(pk__in=others)
        assert session.count() == 1
        assert send_slowly(server, request, session.delete) in ("302", "403")
    assert not IssuedToken.objects.filter(user=user, kind=TokenKind.PERSONAL).exists()
