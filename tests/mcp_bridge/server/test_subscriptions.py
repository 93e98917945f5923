"""Events of open subscriptions reach those who may read their resource."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp_types import SubscriptionFilter

from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Condition, Rule, Upstream
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.cache.recheck import Recheck, recheck_var
from mcp_bridge.http.event_stream import MOST_WAITING, sse_event
from mcp_bridge.http.headers import HeaderPairs
from mcp_bridge.middleware import revocable_stream
from mcp_bridge.models import UpstreamServer
from mcp_bridge.server.portico_server import PorticoServer, require_decision
from mcp_bridge.server.subscriptions import (
    CallerBus,
    CallerListenHandler,
    Listening,
    ListWatch,
    send_changes,
    shown_lists,
)
from tests.mcp_bridge.server.test_session_requests import INITIALIZE
from tests.support.asgi import GONE, Client, chunk, run
from tests.support.mcp_in_process import (
    McpInProcess,
    authorized,
    caller,
    message,
    until,
)

pytestmark = pytest.mark.once
server = PorticoServer("subscriptions")


@server.resource("a://open", scopes=["Use"])
def opened() -> str:
    """For everybody who may use."""
    return ""


@server.resource("a://shelf/{number}", scopes=["Use"])
def shelf(number: str) -> str:
    """A template."""
    return ""


@server.resource("a://vault", scopes=["Rule"])
def vault() -> str:
    """For those who rule."""
    return ""


LIST_CHANGES = (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged())


class Subscriber:
    """One open subscription."""

    def __init__(self, bus: CallerBus, mcp: McpInProcess, name: str, *scopes: str):
        mcp.callers[name] = who = caller(name, *scopes)
        allowed = Decision(True, Reason.OPEN_METHOD)
        call = Call(who, Message("subscriptions/listen"), mcp.rules(), allowed)
        self.heard: list[Any] = []
        self.recheck = Recheck(call, name, "192.0.2.1", time.perf_counter())
        tokens = call_var.set(call), recheck_var.set(self.recheck)
        self.leave = bus.subscribe(self.heard.append)
        recheck_var.reset(tokens[1])
        call_var.reset(tokens[0])


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch) -> McpInProcess:
    return McpInProcess(monkeypatch, server)


@pytest.fixture
def bus() -> CallerBus:
    return CallerBus(server.resources)


@pytest.mark.parametrize(
    ("uri", "alice", "carol"),
    [
        ("a://open", True, True),
        ("a://shelf/3", True, True),
        ("a://vault", False, True),
        ("a://nothing", False, False),
    ],
)
def test_an_update_reaches_those_who_may_read_the_resource(
    bus: CallerBus, mcp: McpInProcess, uri: str, alice: bool, carol: bool
) -> None:
    people = [
        Subscriber(bus, mcp, "alice", "Use"),
        Subscriber(bus, mcp, "carol", "Use", "Rule"),
    ]
    event = ResourceUpdated(uri)
    run(bus.publish(event))
    assert [who.heard == [event] for who in people] == [alice, carol]
    assert mcp.reads == [], "both were read a moment ago"


@pytest.mark.parametrize("event", LIST_CHANGES)
def test_a_changed_list_is_told_to_everybody(
    bus: CallerBus, mcp: McpInProcess, event: Any
) -> None:
    nobody = Subscriber(bus, mcp, "nobody")
    nobody.recheck.read_at -= 1
    run(bus.publish(event))
    assert nobody.heard == [event] and mcp.reads == []


def test_old_rows_are_read_again_before_an_update(
    bus: CallerBus, mcp: McpInProcess
) -> None:
    """Who lost the role hears nothing, who got it does."""
    loses, gets = Subscriber(bus, mcp, "loses", "Rule"), Subscriber(bus, mcp, "gets")
    fresh = Subscriber(bus, mcp, "fresh", "Rule")
    mcp.callers["loses"], mcp.callers["gets"] = caller("loses"), caller("gets", "Rule")
    for who in (loses, gets):
        who.recheck.read_at -= 1
    event = ResourceUpdated("a://vault")
    run(bus.publish(event))
    assert (loses.heard, gets.heard, fresh.heard) == ([], [event], [event])
    assert sorted(mcp.reads) == ["gets", "loses"]


def test_a_revoked_subscriber_delays_nobody(bus: CallerBus, mcp: McpInProcess) -> None:
    """Its stream ends elsewhere."""
    gone, stays = Subscriber(bus, mcp, "gone", "Use"), Subscriber(bus, mcp, "a", "Use")
    mcp.callers["gone"] = Unauthenticated("revoked")
    gone.recheck.read_at -= 1
    run(bus.publish(ResourceUpdated("a://open")))
    assert len(stays.heard) == 1


def test_due_rows_are_read_together(
    bus: CallerBus, mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slow read must not delay the others."""
    people = [Subscriber(bus, mcp, name, "Use") for name in ("a", "b", "c")]
    for who in people:
        who.recheck.read_at -= 1
    reading: list[int] = []

    async def problem(self: Recheck) -> None:
        reading.append(1)
        while len(reading) < 3:
            await asyncio.sleep(0)

    monkeypatch.setattr(Recheck, "problem", problem)
    run(bus.publish(ResourceUpdated("a://open")), 2)
    assert len(reading) == 3


def test_who_left_hears_nothing_and_is_not_read(
    bus: CallerBus, mcp: McpInProcess
) -> None:
    gone, stays = Subscriber(bus, mcp, "gone", "Use"), Subscriber(bus, mcp, "a", "Use")
    gone.leave()
    gone.leave()
    assert bus.rechecks == [stays.recheck]
    for who in (gone, stays):
        who.recheck.read_at -= 1
    run(bus.publish(ResourceUpdated("a://open")))
    assert (len(gone.heard), len(stays.heard), mcp.reads) == (0, 1, ["a"])


def test_outside_a_message_nobody_hears_anything(bus: CallerBus) -> None:
    heard: list[Any] = []
    leave = bus.subscribe(heard.append)
    for event in (*LIST_CHANGES, ResourceUpdated("a://open")):
        run(bus.publish(event))
    assert heard == [] and bus.rechecks == []
    leave()
    assert not bus._listeners


def upstream_rule(uri: str, updates: int, scope: str = "Use", **more: Any) -> Rule:
    """A resource of an upstream server."""
    row = UpstreamServer(name="acme")
    far = Upstream(1, "acme", True, row, None)
    wanted = frozenset({scope})
    return Rule(
        "resource", uri, True, False, wanted, upstream=far, updates=updates, **more
    )


def test_updates_of_upstream_resources_are_events_for_their_readers() -> None:
    who, allowed = caller("alice", "Use"), Decision(True, Reason.OPEN_METHOD)

    def rules(**updates: int) -> Catalogue:
        hidden = upstream_rule("n://vault", updates["vault"], "Rule")
        blocked = upstream_rule("n://held", updates["vault"], blocked="held")
        shown = [upstream_rule(f"n://{name}", n) for name, n in updates.items()]
        return Catalogue([*shown[1:], hidden, blocked])

    message = Message("subscriptions/listen")
    call = Call(who, message, rules(vault=1, a=1, b=5), allowed)
    watch = ListWatch(call)
    assert watch.changes() == []
    call.catalogue = rules(vault=2, a=1, b=6)
    assert watch.changes() == [ResourceUpdated("n://b")] and watch.changes() == []
    call.catalogue = rules(vault=2, a=2, b=7, new=3)
    assert watch.changes() == [
        ResourcesListChanged(),
        ResourceUpdated("n://a"),
        ResourceUpdated("n://b"),
    ], "a resource that is new to the caller was not updated"
    call.catalogue = rules(vault=2, a=3, b=7, new=3)
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    run(send_changes(watch, send))
    assert sent == [], "older clients cannot subscribe"


def test_a_stream_of_an_older_client_tells_of_every_changed_list() -> None:
    """One event of the stream each, which stays open."""
    changes = [*LIST_CHANGES, ResourceUpdated("n://a")]
    watch, client = SimpleNamespace(changes=lambda: changes), Client()
    run(send_changes(cast(Any, watch), client.send))
    for part, kind in zip(client.sent, ("tools", "prompts", "resources"), strict=True):
        method = f'"notifications/{kind}/list_changed"'
        data = f'data: {{"jsonrpc":"2.0","method":{method}}}'
        assert part == {
            "type": "http.response.body",
            "body": f"event: message\r\n{data}\r\n\r\n".encode(),
            "more_body": True,
        }


def event_methods(client: Client) -> list[str]:
    """The methods of the events on a stream."""
    lines = client.body.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]
    return [event["method"].removeprefix("notifications/") for event in events]


FIRST = {"2026-07-28": ["subscriptions/acknowledged"], "2025-11-25": []}


@pytest.mark.parametrize("era", FIRST)
def test_an_open_stream_tells_of_changed_lists(
    monkeypatch: pytest.MonkeyPatch, settings: Any, era: str
) -> None:
    """Only of those that its caller sees, on the streams of both protocols."""
    settings.MCP_SESSIONS = True
    monkeypatch.setattr(revocable_stream, "RECHECK_EVERY", 0.01)
    mcp = McpInProcess(monkeypatch, listed)
    mcp.callers["alice"] = caller("alice", "Use")

    async def story(app: Any) -> None:
        client, headers = Client([chunk(b"")]), {"mcp-protocol-version": era}
        if era == "2026-07-28":
            headers["mcp-method"] = "subscriptions/listen"
            wanted = dict.fromkeys(("toolsListChanged", "promptsListChanged"), True)
            client.events = [chunk(listen(notifications=wanted))]
            scope = authorized("alice", headers=headers)
        else:
            hello = Client([chunk(message("initialize", **INITIALIZE))])
            await app(authorized("alice"), hello.receive, hello.send)
            assert hello.body.count(b'"listChanged":true') == 3
            headers["mcp-session-id"] = hello.headers["mcp-session-id"]
            scope = authorized("alice", "GET", headers)
        task = asyncio.create_task(app(scope, client.receive, client.send))
        seen = list(FIRST[era])
        await until(lambda: client.sent and event_methods(client) == seen)
        changes: list[tuple[Callable[[], object], list[str]]] = [
            (lambda: mcp.closed.add("look"), ["tools/list_changed"]),
            (lambda: mcp.closed.add("rule"), []),
            (lambda: mcp.closed.discard("look"), ["tools/list_changed"]),
            (lambda: mcp.closed.discard("rule"), []),
            (
                lambda: mcp.callers.update(alice=caller("alice", "Use", "Rule")),
                ["tools/list_changed", "prompts/list_changed"],
            ),
        ]
        for change, expected in changes:
            change()
            reads = len(mcp.reads)
            await until(lambda count=reads: len(mcp.reads) > count + 2)  # type: ignore[misc]
            seen += expected
            assert event_methods(client) == seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    mcp.story(story)


listed = PorticoServer("listed", middleware=[require_decision])


@listed.tool(scopes=["Use"])
async def look() -> str:
    return ""


@listed.tool(scopes=["Rule"])
async def rule() -> str:
    return ""


@listed.prompt(scopes=["Rule"])
def order() -> str:
    return ""


def listen(**params: Any) -> bytes:
    """A request of 2026-07-28 to listen."""
    prefix = "io.modelcontextprotocol/"
    meta = {f"{prefix}protocolVersion": "2026-07-28", f"{prefix}clientCapabilities": {}}
    return message("subscriptions/listen", _meta=meta, **params)


ASKED = {"toolsListChanged": True, "promptsListChanged": False}
UPDATED = {"resourceSubscriptions": ["a://open", "ä://x"], "other": 1}
LISTENING = {
    "lists": listen(notifications={**ASKED, "resourcesListChanged": True}),
    "resources": listen(notifications={**UPDATED, "toolsListChanged": True}),
    "nothing": listen(notifications={}),
    "no filter": listen(),
    "a wrong filter": listen(notifications={"toolsListChanged": "perhaps"}),
}


@pytest.mark.parametrize("body", LISTENING.values(), ids=list(LISTENING))
def test_a_subscription_gets_the_same_bytes_as_from_the_sdk(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Head, acknowledgement, events and errors; only the memory differs."""
    mcp = McpInProcess(monkeypatch, server)
    mcp.callers["alice"] = caller("alice", "Use")
    events = (*LIST_CHANGES, ResourceUpdated("a://open"), ResourceUpdated("a://vault"))
    headers = {"mcp-protocol-version": "2026-07-28"}
    headers["mcp-method"] = "subscriptions/listen"

    async def told(app: Any, direct: bool) -> list[Any]:
        client, scope = Client([chunk(body)]), authorized("alice", headers=headers)
        if not direct:
            # The SDK accepts it; Portico's own path is for plain requests.
            scope["headers"].append((b"x-twice", b"1"))
            scope["headers"].append((b"x-twice", b"1"))
        task = asyncio.create_task(app(scope, client.receive, client.send))
        await until(lambda: len(client.sent) > 1)
        assert len(server.bus.listeners) == (client.status == 200)
        for event in events:
            await server.bus.publish(event)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not server.bus.listeners and not server.bus._listeners
        return [part for part in client.sent if part.get("body") != b""]

    async def story(app: Any) -> None:
        started, start = [], Listening.start

        def begins(*given: Any) -> Any:
            started.append(True)
            return start(*given)

        monkeypatch.setattr(Listening, "start", begins)
        direct = await told(app, direct=True)
        assert len(started) == (direct[0]["status"] == 200)
        by_sdk = await told(app, direct=False)
        assert len(started) == (direct[0]["status"] == 200)
        for one in (direct, by_sdk):
            one[0]["headers"] = dict(one[0]["headers"])
            one[0]["headers"].pop(b"x-request-id", None)
        assert direct == by_sdk

    mcp.story(story)


def test_a_subscriber_that_does_not_read_gets_the_result_and_no_more() -> None:
    """As from the SDK: what waits is sent, and the result is the last."""
    bus, asked = (
        CallerBus(server.resources),
        SubscriptionFilter(tools_list_changed=True),
    )
    listening, client = Listening(), Client()
    result = listening.start(bus, 7, asked)
    assert listening.leave is not None and result.meta == listening.meta
    for _ in range(MOST_WAITING + 2):
        listening.deliver(ToolsListChanged())
    run(listening.serve({"headers": []}, client.receive, client.send, b"{}"))
    assert client.body.count(b"tools/list_changed") == MOST_WAITING
    assert client.sent[-1]["body"] == sse_event(b"{}") and not bus._listeners
    assert not client.sent[-1]["more_body"]


def shown_of(rule: Rule, *scopes: str) -> int:
    who = caller("alice", *(scopes or ("Use",)))
    return shown_lists(who, Catalogue([rule]))[rule.kind]


def test_a_list_changes_with_all_that_it_shows() -> None:
    """Definition and limits; not with what clients cannot see."""
    limit = (Condition("", "/a", "at_most", 1),)
    plain = Rule("tool", "look", True, False, frozenset({"Use"}))
    rules = [
        plain,
        replace(plain, accepted_hash="h2"),
        replace(plain, conditions=limit),
        replace(plain, conditions=(Condition("", "/a", "at_most", 2),)),
        replace(plain, enabled=False),
    ]
    assert len({shown_of(rule) for rule in rules}) == len(rules)
    assert shown_of(replace(plain, updates=9, recorded="all")) == shown_of(plain)


def test_limits_of_another_role_change_the_list() -> None:
    """Each role has its own limits, so what a caller sees follows the roles."""
    limit = (Condition("Crew", "/a", "at_most", 1),)
    rule = Rule("tool", "look", True, False, frozenset({"Use"}), conditions=limit)

    def by(role: str) -> int:
        grants = MappingProxyType({"Use": (role,)})
        who = caller("alice", grants=grants, roles=(role,))
        return shown_lists(who, Catalogue([rule]))["tool"]

    assert by("Crew") != by("Captain")


def test_a_subscriber_that_does_not_read_ends(caplog: pytest.LogCaptureFixture) -> None:
    listening = Listening()
    listening.start(
        CallerBus(server.resources), 7, SubscriptionFilter(tools_list_changed=True)
    )
    for _ in range(MOST_WAITING):
        listening.deliver(ToolsListChanged())
    assert not listening.stream.ended
    for _ in range(3):
        listening.deliver(ToolsListChanged())
    assert listening.stream.ended and caplog.text.count("does not read") == 1


def test_an_open_subscription_keeps_no_headers() -> None:
    headers = HeaderPairs([(b"authorization", b"Bearer x")])
    bus, client = CallerBus(server.resources), Client([GONE])
    listening = Listening()
    listening.start(bus, 7, SubscriptionFilter())
    run(listening.serve({"headers": headers}, client.receive, client.send, b"{}"))
    assert headers == [] and not bus._listeners


def test_the_sdk_has_the_limit_of_portico(settings: Any) -> None:
    settings.MAX_STREAMS = 123
    assert CallerListenHandler(CallerBus(server.resources))._max_subscriptions == 123


def test_an_open_subscription_keeps_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its filter may be large, and it stays open for hours."""
    mcp = McpInProcess(monkeypatch, server)
    mcp.callers["alice"] = caller("alice", "Use")
    headers = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "subscriptions/listen",
    }

    async def story(app: Any) -> None:
        client = Client([chunk(listen(notifications={"toolsListChanged": True}))])
        scope = authorized("alice", headers=headers)
        task = asyncio.create_task(app(scope, client.receive, client.send))
        await until(lambda: len(client.sent) > 1)
        (recheck,) = server.bus.rechecks
        assert recheck.call.message.method == "subscriptions/listen"
        assert recheck.call.message.content == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    mcp.story(story)


def test_what_a_caller_gains_or_loses_changes_the_lists() -> None:
    """Also while the rules stay the same; each list once."""
    rules = Catalogue(
        Rule(kind, f"{kind}://x", True, False, frozenset({"Use"}))
        for kind in ("resource", "resource_template", "prompt")
    )
    decision = Decision(True, Reason.OPEN_METHOD)
    call = Call(caller("alice"), Message("subscriptions/listen"), rules, decision)
    watch = ListWatch(call)
    assert watch.changes() == []
    for scopes in (("Use",), ()):
        call.principal = caller("alice", *scopes)
        assert watch.changes() == [ResourcesListChanged(), PromptsListChanged()]
        assert watch.changes() == []


@pytest.mark.parametrize("ended", [True, False])
def test_only_the_server_ends_a_subscription_with_its_result(ended: bool) -> None:
    """A client that has left reads nothing more."""
    client = Client([] if ended else [GONE])
    listening = Listening()
    listening.start(CallerBus(server.resources), 7, SubscriptionFilter())
    if ended:
        listening.stream.close()
    run(listening.serve({"headers": []}, client.receive, client.send, b'{"r":1}'))
    assert (b'{"r":1}' in client.body) is ended
    last = client.sent[-1].get("more_body", False)
    assert last is not ended
