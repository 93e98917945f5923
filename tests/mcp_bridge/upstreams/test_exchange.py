"""Requests in both protocol eras, to a server that follows a script over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast
from uuid import uuid4

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import credentials, exchange
from mcp_bridge.upstreams.exchange import (
    LEGACY,
    LONGEST,
    MODERN,
    Nobody,
    Sent,
    request,
)
from mcp_bridge.upstreams.http_client import close_clients
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
DONE: dict[str, Any] = {"content": []}
READY = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    exchange._sessions.clear()
    exchange._protocols.clear()


class Seen(dict[str, Any]):
    """A request: its HTTP method, its headers and its body."""

    @property
    def method(self) -> str:
        return str(self["body"].get("method", "answer"))


def answered(result: Any = DONE, **headers: str) -> bytes:
    """A result as JSON; `ID` becomes the id of the request."""
    return plain(200, {"jsonrpc": "2.0", "id": "ID", "result": result}, **headers)


def failed(code: int, data: Any = None) -> bytes:
    error = {"code": code, "message": "no", "data": data}
    return plain(200, {"jsonrpc": "2.0", "id": "ID", "error": error})


def plain(status: int, body: Any = None, **headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


def stream(*messages: Any) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    )
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in messages]
    return head + b"\r\n" + b"".join(events)


Script = Callable[[Seen, list[Seen]], bytes | None]
"""The answer to a request after earlier ones; None is no answer."""
Story = Callable[[Upstream], Awaitable[Any]]


def told(script: Script, story: Story, **values: Any) -> tuple[Any, list[Seen]]:
    """(result or error of the story, what the server received)."""
    seen: list[Seen] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, v in (x.split(": ", 1) for x in lines[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        got = Seen(
            http=lines[0].split()[0], headers=headers, body=json.loads(body or b"{}")
        )
        before = list(seen)
        seen.append(got)
        answer = script(got, before)
        try:
            if answer is None:
                await asyncio.sleep(30)
            else:
                writer.write(
                    answer.replace(b'"ID"', json.dumps(got["body"].get("id")).encode())
                )
        finally:
            writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/{uuid4().hex}"
        row = UpstreamServer(name="acme", url=url, **{"protocol": LEGACY, **values})
        try:
            return await story(Upstream(9, "acme", True, row, None))
        except (UpstreamProblem, MCPError) as problem:
            return problem
        finally:
            await exchange.background_done()
            await close_clients()
            server.close()

    return asyncio.run(run()), seen


class Client(Nobody):
    """A client with a session, that keeps the notices it gets."""

    def __init__(self, session: str = "") -> None:
        self.session = session
        self.told: list[tuple[str, Any]] = []

    async def notify(self, method: str, params: Any) -> None:
        self.told.append((method, params))


def legacy(got: Seen, before: list[Seen]) -> bytes | None:
    """A server with sessions."""
    match got.method:
        case "initialize":
            number = sum(one.method == "initialize" for one in before)
            return answered(READY, Mcp_Session_Id=f"s{number}")
        case "tools/call":
            return answered()
    return plain(202)


async def call(server: Upstream, client: Client | None = None) -> Any:
    params = {"name": "add", "arguments": {}}
    return await request(server, "tools/call", params, downstream=client)


def test_an_older_server_has_one_session_for_all_without_their_own() -> None:
    async def story(server: Upstream) -> Any:
        found = [await call(server), await call(server)]
        exchange.end_session(server, Nobody())
        return found

    result, seen = told(legacy, story)
    assert result == [DONE, DONE]
    methods = [one.method for one in seen if one["http"] == "POST"]
    assert methods == [
        *("initialize", "notifications/initialized"),
        *("tools/call", "tools/call"),
    ]
    for one in seen[1:]:
        assert one["headers"]["mcp-session-id"] == "s0"
        assert one["headers"]["mcp-protocol-version"] == "2025-11-25"
    assert "mcp-session-id" not in seen[0]["headers"]
    assert [one["http"] for one in seen].count("DELETE") == 1
    assert seen[-1]["http"] == "DELETE" and not exchange._sessions


def test_each_session_of_a_client_has_its_own() -> None:
    async def story(server: Upstream) -> Any:
        for client in (Client("a"), Client("b"), Client("a")):
            await call(server, client)
        exchange.close_sessions_of_client("")
        exchange.close_sessions_of_client("a")
        return [key[-1] for key in exchange._sessions]

    left, seen = told(legacy, story)
    used = [
        one["headers"]["mcp-session-id"] for one in seen if one.method == "tools/call"
    ]
    assert (left, used) == (["b"], ["s0", "s1", "s0"])
    assert seen[-1]["http"] == "DELETE"
    assert seen[-1]["headers"]["mcp-session-id"] == "s0"


def lost(times: int) -> Script:
    """Forgets sessions as often."""

    def script(got: Seen, before: list[Seen]) -> bytes | None:
        calls = sum(one.method == "tools/call" for one in before)
        if got.method == "tools/call" and calls < times:
            return plain(404)
        return legacy(got, before)

    return script


def test_a_lost_session_is_opened_again_once() -> None:
    """The server did not process the call, so it is sent again."""
    result, seen = told(lost(1), call)
    assert result == DONE
    assert [one.method for one in seen].count("initialize") == 2
    assert [
        one["headers"]["mcp-session-id"] for one in seen if one.method == "tools/call"
    ] == ["s0", "s1"]
    problem, seen = told(lost(9), call)
    assert (problem.code, problem.outcome) == ("status", Outcome.ERROR)
    assert [one.method for one in seen].count("tools/call") == 2


@pytest.mark.parametrize("version", ["1999-01-01", "2026-07-28", None])
def test_a_session_needs_a_known_version(version: Any) -> None:
    def script(got: Seen, before: list[Seen]) -> bytes:
        return answered({**READY, "protocolVersion": version})

    problem, seen = told(script, call)
    assert problem.code == "invalid" and len(seen) == 1


@pytest.mark.parametrize("use", ["call", "failure", "listening"])
def test_every_use_of_a_session_delays_its_end(use: str) -> None:
    def script(got: Seen, before: list[Seen]) -> bytes | None:
        if got["http"] == "GET":
            return stream()
        if use == "failure" and got.method == "tools/call" and "calls" in opened:
            return plain(500)
        return legacy(got, before)

    async def story(server: Upstream) -> bool:
        client = Client("a")
        await call(server, client)
        opened.append("calls")
        (session,) = exchange._sessions.values()
        session.used_at = long_ago = time.monotonic() - 2 * exchange.IDLE_SECONDS
        with pytest.raises(UpstreamProblem) if use == "failure" else nullcontext():
            if use == "listening":
                await exchange.listen(server, {}, client)
            else:
                await call(server, client)
        await exchange.close_idle_sessions()
        return session.used_at > long_ago and len(exchange._sessions) == 1

    opened: list[str] = []
    assert told(script, story)[0] is True


def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    def script(got: Seen, before: list[Seen]) -> bytes | None:
        return None if got.method == "tools/call" else legacy(got, before)

    async def story(server: Upstream) -> Any:
        task = asyncio.create_task(call(server))
        while not (exchange._sessions and list(exchange._sessions.values())[0].running):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [one.running for one in exchange._sessions.values()]

    running, seen = told(script, story)
    number = next(one["body"]["id"] for one in seen if one.method == "tools/call")
    notice = seen[-1]["body"]
    assert running == [0] and notice["method"] == "notifications/cancelled"
    assert notice["params"]["requestId"] == number
    assert seen[-1]["headers"]["mcp-session-id"] == "s0"


PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"a": 1}}


def test_what_precedes_an_answer_is_forwarded_and_answered() -> None:
    """A ping by Portico; what the client cannot answer by an error."""

    def script(got: Seen, before: list[Seen]) -> bytes:
        if got.method != "tools/call":
            return plain(202)
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        ask = {"jsonrpc": "2.0", "id": 8, "method": "roots/list"}
        other = {"jsonrpc": "2.0", "id": 10**9, "result": {"wrong": 1}}
        mine = {"jsonrpc": "2.0", "id": got["body"]["id"], "result": DONE}
        return stream(PROGRESS, ping, ask, other, mine)

    client = Client()

    async def story(server: Upstream) -> Any:
        return await call(server, client)

    result, seen = told(script, story, protocol=MODERN)
    assert result == DONE
    assert client.told == [("notifications/progress", {"a": 1})]
    ping, refused = (one["body"] for one in seen[1:])
    assert ping == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert refused["id"] == 8 and refused["error"]["code"] == METHOD_NOT_FOUND


def test_a_request_of_today_repeats_its_method_and_name_in_headers() -> None:
    _result, (one,) = told(lambda *_: answered(), call, protocol=MODERN)
    headers, meta = one["headers"], one["body"]["params"]["_meta"]
    assert (headers["mcp-method"], headers["mcp-name"]) == ("tools/call", "add")
    assert headers["mcp-protocol-version"] == "2026-07-28"
    assert headers["accept"] == "application/json, text/event-stream"
    assert headers["user-agent"].startswith("portico/")
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "portico"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}


def test_a_server_that_was_replaced_is_asked_again() -> None:
    """It said that it does not know the protocol, so it did not process the call."""

    def script(got: Seen, before: list[Seen]) -> bytes | None:
        modern = "mcp-method" in got["headers"]
        if got.method == "server/discover":
            return failed(METHOD_NOT_FOUND)
        if modern:
            return failed(UNSUPPORTED_PROTOCOL_VERSION)
        return legacy(got, before)

    async def story(server: Upstream) -> Any:
        exchange._protocols[server.pk, server.row.url] = MODERN
        result = await call(server)
        return result, exchange.known_protocol(server)

    result, seen = told(script, story, protocol="auto")
    assert result == (DONE, LEGACY)
    assert [one.method for one in seen][:3] == [
        *("tools/call", "server/discover", "initialize")
    ]


def test_a_server_that_stays_so_is_not_asked_again() -> None:
    def script(got: Seen, before: list[Seen]) -> bytes | None:
        if got.method == "server/discover":
            return answered({"supportedVersions": ["2026-07-28"]})
        return failed(UNSUPPORTED_PROTOCOL_VERSION)

    problem, seen = told(script, call, protocol="auto")
    assert problem.error.code == UNSUPPORTED_PROTOCOL_VERSION
    assert [one.method for one in seen] == [
        *("server/discover", "tools/call", "server/discover")
    ]


@pytest.mark.parametrize(
    ("answer", "protocol"),
    [
        (answered({"supportedVersions": ["2026-07-28", "x"]}), MODERN),
        (answered({"supportedVersions": ["2025-11-25"]}), LEGACY),
        (answered({}), LEGACY),
        (failed(METHOD_NOT_FOUND), LEGACY),
        (failed(UNSUPPORTED_PROTOCOL_VERSION, {"supported": ["2026-07-28"]}), MODERN),
        (failed(UNSUPPORTED_PROTOCOL_VERSION, {"supported": []}), LEGACY),
        (plain(400), LEGACY),
        (plain(200, "text"), LEGACY),
    ],
)
def test_the_answer_to_a_discovery_shows_the_protocol(
    answer: bytes, protocol: str
) -> None:
    async def story(server: Upstream) -> Any:
        asked = [exchange.protocol_of(server, None) for _ in range(3)]
        return set(await asyncio.gather(*asked))

    found, seen = told(lambda *_: answer, story, protocol="auto")
    assert found == {protocol} and len(seen) == 1, "asked once for all who wait"


@pytest.mark.parametrize(
    ("status", "code"), [(401, "credential"), (403, "forbidden"), (500, "failed")]
)
def test_a_refusal_shows_no_protocol(status: int, code: str) -> None:
    async def story(server: Upstream) -> Any:
        return await exchange.protocol_of(server, None)

    problem, _seen = told(lambda *_: plain(status), story, protocol="auto")
    assert problem.code == code and not exchange._protocols


def test_a_rejected_token_is_forgotten() -> None:
    credentials._tokens["client", 9, "a"] = credentials.Held("x", 1e12)
    problem, _seen = told(lambda *_: plain(401), call, protocol=MODERN)
    assert problem.code == "credential"
    assert ("client", 9, "a") not in credentials._tokens


REFUSAL = {"jsonrpc": "2.0", "id": "ID", "error": {"code": -32000, "message": "no"}}


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "credential"), (403, "forbidden"), (429, "busy"), (500, "failed")],
)
def test_a_status_says_more_than_the_error_that_comes_with_it(
    status: int, code: str
) -> None:
    """The breaker, the credential and the wait depend on it."""
    problem, _seen = told(lambda *_: plain(status, REFUSAL), call, protocol=MODERN)
    assert isinstance(problem, UpstreamProblem) and problem.code == code


@pytest.mark.parametrize("status", [200, 400, 404])
def test_the_servers_error_is_passed_on_and_asks_for_no_protocol(status: int) -> None:
    def script(got: Seen, before: list[Seen]) -> bytes:
        if got.method == "server/discover":
            return answered({"supportedVersions": ["2026-07-28"]})
        return plain(status, REFUSAL)

    problem, seen = told(script, call, protocol="auto")
    assert isinstance(problem, MCPError) and problem.error.code == -32000
    assert [one.method for one in seen] == ["server/discover", "tools/call"]


@pytest.mark.parametrize(("session", "told_of"), [("a", {"roots": {}}), ("", {})])
def test_only_the_client_of_a_session_can_be_asked(session: str, told_of: Any) -> None:
    """A session that clients share asks nobody."""
    client = Client(session)
    client.capabilities = {"roots": {}}
    _result, seen = told(legacy, lambda server: call(server, client))
    assert seen[0]["body"]["params"]["capabilities"] == told_of


@pytest.mark.parametrize(
    ("lasted", "left"), [(0.0, 30.0), (LONGEST - 5, 5.0), (LONGEST + 5, 0.0)]
)
def test_progress_extends_a_call_up_to_an_hour(lasted: float, left: float) -> None:
    class Deadline:
        """Keeps what it is moved to."""

        at = 0.0

        def expired(self) -> bool:
            return False

        def reschedule(self, when: float) -> None:
            self.at = when

    async def story() -> float:
        deadline = Deadline()
        sent = Sent(False, cast(Any, deadline), 30.0, time.monotonic() - lasted)
        sent.extend()
        return deadline.at - asyncio.get_running_loop().time()

    assert asyncio.run(story()) == pytest.approx(left, abs=1)


@pytest.mark.parametrize(("status", "opened"), [(404, 2), (405, 1)])
def test_a_stream_of_a_lost_session_begins_a_new_one(status: int, opened: int) -> None:
    def script(got: Seen, before: list[Seen]) -> bytes | None:
        return plain(status) if got["http"] == "GET" else legacy(got, before)

    async def story(server: Upstream) -> None:
        for _ in range(2):
            with pytest.raises(UpstreamProblem):
                await exchange.listen(server, {}, Client())

    _none, seen = told(script, story)
    assert [one.method for one in seen].count("initialize") == opened


def test_only_notices_of_a_stream_are_forwarded() -> None:
    """No requests and answers: nobody here could answer, or has asked."""
    notice = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    others = [{**notice, "id": 5}, {**notice, "method": 5}, {"id": 1, "result": {}}]

    def script(got: Seen, before: list[Seen]) -> bytes | None:
        if got["http"] == "GET":
            return stream(*others, notice)
        return legacy(got, before)

    async def story(server: Upstream) -> Any:
        client = Client()
        await exchange.listen(server, {}, client)
        return client.told

    assert told(script, story)[0] == [(notice["method"], {})]


def test_arguments_and_names_are_repeated_in_headers() -> None:
    """SEP-2243; a header is ASCII."""

    async def story(server: Upstream) -> Any:
        params = {"name": "\u00e4dd", "arguments": {"region": "eu"}}
        mirrored: dict[tuple[str, ...], str] = {("region",): "Region"}
        return await request(server, "tools/call", params, mirrored=mirrored)

    result, (one,) = told(lambda *_: answered(), story, protocol=MODERN)
    assert result == DONE and one["headers"]["mcp-param-region"] == "eu"
    assert one["headers"]["mcp-name"].isascii()
    assert one["headers"]["mcp-name"].startswith("=?base64?")


def test_a_404_without_a_session_is_no_lost_session() -> None:
    """Nothing is sent again."""

    def script(got: Seen, before: list[Seen]) -> bytes:
        if got.method == "initialize":
            return answered(READY)
        return plain(404 if got.method == "tools/call" else 202)

    problem, seen = told(script, call)
    assert problem.code == "status"
    assert [one.method for one in seen].count("tools/call") == 1


def test_an_answer_to_a_question_extends_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person may need longer than the server."""
    extended: list[bool] = []
    monkeypatch.setattr(Sent, "extend", lambda sent: extended.append(True))

    def script(got: Seen, before: list[Seen]) -> bytes:
        if got.method != "tools/call":
            return plain(202)
        ask = {"jsonrpc": "2.0", "id": 8, "method": "roots/list"}
        log = {"jsonrpc": "2.0", "method": "notifications/message"}
        mine = {"jsonrpc": "2.0", "id": got["body"]["id"], "result": DONE}
        return stream(ask, log, *reported, mine)

    reported: list[Any] = []
    assert told(script, call, protocol=MODERN)[0] == DONE and extended == [True]
    reported += [PROGRESS, PROGRESS]
    assert told(script, call, protocol=MODERN)[0] == DONE and len(extended) == 4


def test_users_of_a_server_that_knows_them_share_no_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def headers(*_: Any) -> dict[str, str]:
        return {}

    monkeypatch.setattr(exchange, "credential_headers", headers)

    async def story(server: Upstream) -> Any:
        for user in (1, 2, 1):
            who = caller(user_id=user)
            await request(server, "tools/call", {"name": "a"}, principal=who)

    for mode, opened in (("signed_assertion", 2), ("static_header", 1)):
        _none, seen = told(legacy, story, credential_mode=mode)
        assert [one.method for one in seen].count("initialize") == opened


def test_a_listener_counts_as_running_while_it_listens() -> None:
    """And a resource that cannot be subscribed ends nothing."""
    offers = {"resources": {"subscribe": True}}

    def script(got: Seen, before: list[Seen]) -> bytes | None:
        if got.method == "initialize":
            return answered({**READY, "capabilities": offers}, Mcp_Session_Id="s")
        if got.method == "resources/subscribe":
            return failed(-32002)
        return stream() if got["http"] == "GET" else plain(202)

    async def story(server: Upstream) -> Any:
        wanted = {"resourceSubscriptions": ["a://1", "a://2"]}
        await exchange.listen(server, wanted, Client())
        return [one.running for one in exchange._sessions.values()]

    running, seen = told(script, story)
    assert running == [0]
    assert [one.method for one in seen].count("resources/subscribe") == 2


def test_the_error_of_a_client_is_passed_on_and_a_long_one_is_cut() -> None:
    class Refuses(Client):
        async def ask(self, method: str, params: Any) -> Any:
            raise MCPError(-7, "no")

    def script(got: Seen, before: list[Seen]) -> bytes:
        if got.method != "tools/call":
            return plain(202)
        ask = {"jsonrpc": "2.0", "id": 8, "method": "roots/list"}
        error = {"code": -1, "message": "x" * 5000}
        return stream(ask, {"jsonrpc": "2.0", "id": got["body"]["id"], "error": error})

    problem, seen = told(
        script, lambda server: call(server, Refuses()), protocol=MODERN
    )
    assert len(problem.error.message) == 2000
    assert seen[1]["body"]["error"] == {"code": -7, "message": "no"}


@pytest.mark.parametrize(("after", "says"), [("9", "in 9 s"), ("soon", "later")])
def test_a_busy_server_says_when_to_try_again(after: str, says: str) -> None:
    answer = plain(429, Retry_After=after)
    problem, _seen = told(lambda *_: answer, call, protocol=MODERN)
    assert problem.text.endswith(f"Try again {says}.")


@pytest.mark.parametrize("sends", [True, False])
def test_a_call_without_an_answer_in_time_may_have_run_if_it_was_sent(
    monkeypatch: pytest.MonkeyPatch, sends: bool
) -> None:
    async def slowly(*about: Any) -> dict[str, str]:
        if not sends:
            await asyncio.sleep(60)
        return {}

    async def story(server: Upstream) -> Any:
        return await request(server, "tools/call", {"name": "a"}, seconds=0.2)

    monkeypatch.setattr(exchange, "credential_headers", slowly)
    problem, seen = told(lambda *_: None, story, protocol=MODERN)
    assert isinstance(problem, UpstreamProblem) and len(seen) == int(sends)
    expected = Outcome.MAY_HAVE_RUN if sends else Outcome.TIMED_OUT
    assert (problem.code, problem.outcome, problem.breaks) == (
        *("timeout", expected),
        True,
    )
    assert "did not answer in 0.2 s." in problem.text
    assert ("The call may have run" in problem.text) is sends


def test_an_answer_that_is_no_mcp_may_be_of_a_call_that_has_run() -> None:
    for body in ("text", {"jsonrpc": "2.0", "id": "ID"}, {"id": "ID", "result": 5}):
        answer = plain(200, body)
        problem, _seen = told(lambda *_, a=answer: a, call, protocol=MODERN)
        assert (problem.code, problem.outcome) == ("invalid", Outcome.MAY_HAVE_RUN)
        assert "The call may have run" in problem.text and not problem.breaks


def test_the_meta_of_a_call_reaches_a_server_of_today() -> None:
    async def story(server: Upstream) -> Any:
        meta = {"traceparent": "00-a", "io.modelcontextprotocol/clientInfo": {"x": 1}}
        return await request(server, "tools/call", {"name": "a", "_meta": meta})

    _result, (one,) = told(lambda *_: answered(), story, protocol=MODERN)
    sent = one["body"]["params"]["_meta"]
    assert sent["traceparent"] == "00-a"
    assert sent["io.modelcontextprotocol/clientInfo"]["name"] == "portico"


def test_a_stream_that_is_none_is_a_problem() -> None:
    def script(got: Seen, before: list[Seen]) -> bytes | None:
        return answered() if got["http"] == "GET" else legacy(got, before)

    problem, _seen = told(script, lambda up: exchange.listen(up, {}, Client()))
    assert isinstance(problem, UpstreamProblem) and problem.code == "status"


def test_calls_that_wait_for_one_session_open_it_once() -> None:
    async def story(server: Upstream) -> Any:
        found = await asyncio.gather(*(call(server) for _ in range(3)))
        await call(server, Client("a"))
        exchange.end_session(server, Nobody())
        left = [key[-1] for key in exchange._sessions]
        return found, left, exchange.session_info(server, Client("a"))

    (found, left, info), seen = told(legacy, story)
    assert found == [DONE] * 3 and left == ["a"] and info == READY
    assert [one.method for one in seen].count("initialize") == 2


def test_the_end_of_a_loop_waits_for_its_own_notices_only() -> None:
    class Elsewhere:
        """A task of another thread's loop; this one cannot wait for it."""

        def get_loop(self) -> Any:
            return None

    async def story() -> list[str]:
        done: list[str] = []

        async def notice() -> None:
            await asyncio.sleep(0.01)
            done.append("told")

        exchange._in_background(notice())
        await exchange.background_done()
        return done

    other = cast(Any, Elsewhere())
    exchange._background.add(other)
    try:
        assert asyncio.run(story()) == ["told"]
    finally:
        exchange._background.discard(other)


def test_a_call_can_be_extended_while_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Sent] = []

    async def send(*about: Any) -> dict[str, Any]:
        seen.append(about[-1])
        about[-1].extend()
        return DONE

    monkeypatch.setattr(exchange, "_send", send)

    async def story(server: Upstream) -> Any:
        return await request(server, "tools/call", {"name": "a"}, seconds=7.0)

    result, _seen = told(lambda *_: None, story, protocol=MODERN)
    assert result == DONE and seen[0].limit == 7.0
    assert seen[0].deadline is not None


@pytest.mark.parametrize(
    ("status", "code"), [(500, "failed"), (401, "credential"), (404, "status")]
)
def test_a_status_counts_also_where_a_stream_comes_with_it(
    status: int, code: str
) -> None:
    answer = stream({"jsonrpc": "2.0", "id": 1, "method": "x"})
    answer = answer.replace(b"200 OK", b"%d X" % status)
    problem, _seen = told(lambda *_: answer, call, protocol=MODERN)
    assert isinstance(problem, UpstreamProblem) and problem.code == code


@pytest.mark.parametrize("code", ["x", None, True, 1.5])
def test_an_error_without_a_number_is_an_internal_one(code: Any) -> None:
    error = {"code": code, "message": "no"}
    answer = plain(200, {"jsonrpc": "2.0", "id": "ID", "error": error})
    problem, _seen = told(lambda *_: answer, call, protocol=MODERN)
    assert (problem.error.code, problem.error.message) == (-32603, "no")


@pytest.mark.parametrize("messages", [0, 1])
def test_a_stream_that_ends_early_may_be_of_a_call_that_has_run(messages: int) -> None:
    """And counts for the breaker: the server may have stopped."""
    notice = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
    script: Script = lambda got, before: stream(*[notice] * messages)  # noqa: E731
    problem, _seen = told(script, call, protocol=MODERN)
    assert (problem.code, problem.outcome) == ("broken", Outcome.MAY_HAVE_RUN)
    assert problem.breaks and "ended its answer early" in problem.text
