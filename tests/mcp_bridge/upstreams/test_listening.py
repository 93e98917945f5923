"""Notices of upstream servers lead to few and early discoveries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError
from django.utils import timezone
from mcp.shared.exceptions import MCPError

from mcp_bridge.access.catalogue import Upstream, read_catalogue
from mcp_bridge.models import (
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import exchange, listening
from mcp_bridge.upstreams.http_client import close_clients
from mcp_bridge.upstreams.listening import (
    LIST_CHANGES,
    MAX_RESOURCES,
    UPDATED,
    WANTED,
    Heard,
    Listener,
    Listeners,
    Notices,
    take_leases,
)
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.asgi import run
from tests.support.mcp_in_process import until

STREAM = (
    b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)
CHANGED = b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n'
OTHER = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'


@pytest.fixture(autouse=True)
def no_sessions() -> Iterator[None]:
    exchange._sessions.clear()
    yield
    exchange._sessions.clear()


class Server:
    """A server of one protocol that has one notice."""

    def __init__(self, protocol: str, offers_stream: bool = True) -> None:
        self.protocol, self.offers_stream = protocol, offers_stream
        self.seen: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.capabilities: dict[str, Any] = {}

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body: dict[str, Any] = {"method": "GET"}
        if b"content-length:" in head:
            size = int(head.partition(b"content-length:")[2].split()[0])
            body = json.loads(await reader.readexactly(size))
        self.seen.append(body["method"])
        self.bodies.append(body)
        writer.write(self.answer(body))
        await writer.drain()
        writer.close()

    def answer(self, body: dict[str, Any]) -> bytes:
        method, number = body["method"], body.get("id")
        if method in ("GET", "subscriptions/listen") and self.offers_stream:
            return STREAM + OTHER + CHANGED
        if method == "GET":
            return b"HTTP/1.1 405 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        if method == "subscriptions/listen":
            error = {"code": -32601, "message": "Method not found"}
            return self.json({"jsonrpc": "2.0", "id": number, "error": error})
        if method == "resources/subscribe":
            return self.json({"jsonrpc": "2.0", "id": number, "result": {}})
        if method == "initialize":
            about = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities}
            answer = {"jsonrpc": "2.0", "id": number, "result": about}
            return self.json(answer, b"Mcp-Session-Id: s\r\n")
        return b"HTTP/1.1 202 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def json(self, answer: Any, more: bytes = b"") -> bytes:
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n" + more
        head += b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body

    def listen(self, wanted: Any = WANTED) -> tuple[bool, Exception | None]:
        """Whether a notice arrived, and how the stream ended."""

        async def told() -> tuple[bool, Exception | None]:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/{uuid4().hex}"
            row = UpstreamServer(name="acme", url=url, protocol=self.protocol)
            notices, end = Notices(), None
            try:
                upstream = Upstream(1, "acme", True, row, None)
                await exchange.listen(upstream, wanted, notices)
            except Exception as error:
                end = error
            await close_clients()
            server.close()
            return notices.changed.is_set(), end

        return run(told())


def test_a_notice_of_a_new_server_arrives() -> None:
    server = Server("2026-07-28")
    changed, end = server.listen()
    assert changed and isinstance(end, UpstreamProblem) and end.code == "broken"
    assert server.seen == ["subscriptions/listen"]


def test_a_notice_of_an_older_server_arrives() -> None:
    server = Server("legacy")
    assert server.listen() == (True, None)
    assert server.seen == ["initialize", "notifications/initialized", "GET"]


@pytest.mark.parametrize("protocol", ["legacy", "2026-07-28"])
def test_a_server_that_offers_no_stream_is_left_alone(protocol: str) -> None:
    changed, end = Server(protocol, offers_stream=False).listen()
    assert not changed and end is not None
    assert getattr(end, "code", "") == "status" or "not found" in str(end).lower()


ACME = Upstream(1, "acme", True, UpstreamServer(name="acme"), None)
HEARD = Heard(ACME, ("note://a", "note://b"))


def test_a_new_server_is_asked_for_its_resources() -> None:
    server = Server("2026-07-28")
    server.listen(HEARD.wanted)
    wanted = server.bodies[0]["params"]["notifications"]
    assert wanted == {**WANTED, "resourceSubscriptions": ["note://a", "note://b"]}
    assert Heard(ACME).wanted == WANTED, "an empty list asks for nothing"
    kinds = ("tools", "resources", "prompts")
    assert {f"{kind}ListChanged": True for kind in kinds} == WANTED


@pytest.mark.parametrize("offered", [{"resources": {"subscribe": True}}, {}, None])
def test_resources_of_an_older_server_are_subscribed_if_it_offers_that(
    offered: Any,
) -> None:
    server = Server("legacy")
    server.capabilities = offered
    server.listen(HEARD.wanted)
    found = [b["params"] for b in server.bodies if b["method"] == "resources/subscribe"]
    assert found == ([{"uri": uri} for uri in HEARD.resources] if offered else [])
    assert server.seen[-1] == "GET"


def test_updates_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of resources that clients can read; a busy database loses no listener."""
    monkeypatch.setattr(listening, "SETTLE", 0.01)
    monkeypatch.setattr(listening, "COUNT_EVERY", 0.1)
    counted: list[Any] = []
    times: list[float] = []

    async def listen(upstream: Upstream, wanted: Any, to: Notices) -> None:
        while True:
            for uri in ("note://b", "note://a", "note://other", ["note://a"], None):
                await to.notify(UPDATED, {"uri": uri})
            await asyncio.sleep(0.002)

    async def database(work: Any, *args: Any) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise DatabaseError("busy")
        counted.append(args)

    monkeypatch.setattr(exchange, "listen", listen)
    monkeypatch.setattr(listening, "in_database", database)

    async def story() -> None:
        task = asyncio.create_task(
            Listener(HEARD, lambda server: asyncio.sleep(0)).run()
        )
        while len(counted) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story())
    assert counted[0] == (1, ["note://a", "note://b"])
    assert all(b - a >= 0.09 for a, b in zip(times, times[1:], strict=False))


@pytest.mark.django_db
def test_an_update_is_counted_in_the_rows_of_its_server() -> None:
    server, other = (
        UpstreamServer.objects.create(name=name, url=f"https://{name}.example/mcp")
        for name in ("a", "b")
    )
    rows = {
        name: Primitive.objects.create(
            kind=kind, name=name, upstream_name="n://1", upstream=of, state=state
        )
        for name, kind, of, state in (
            ("n://1", "resource", server, "accepted"),
            ("changed", "resource", server, "changed"),
            ("held", "resource", server, "held"),
            ("tool", "tool", server, "accepted"),
            ("theirs", "resource", other, "accepted"),
        )
    }
    assert Primitive.objects.announce(server.pk, ["n://1", "n://2"]) == 2
    counts = {
        name: Primitive.objects.get(pk=row.pk).updates for name, row in rows.items()
    }
    assert counts == {"n://1": 1, "changed": 1, "held": 0, "tool": 0, "theirs": 0}
    rule = read_catalogue()["resource", "n://1"]
    assert rule.updates == 1


@pytest.mark.django_db
def test_resources_that_clients_can_read_are_listened_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    UpstreamStatus.objects.create(upstream=server)
    for number, (state, enabled) in enumerate(
        [("accepted", True), ("held", True), ("accepted", False), ("changed", True)]
    ):
        Primitive.objects.create(
            kind="resource",
            name=f"n://{number}",
            upstream_name=f"n://{number}",
            upstream=server,
            state=state,
            enabled=enabled,
        )
    ((heard, until),) = take_leases({})
    assert heard.resources == ("n://0", "n://3")
    monkeypatch.setattr(listening, "MAX_RESOURCES", 1)
    ((first, _until),) = take_leases({server.pk: until})
    assert first.resources == ("n://0",) and first.key != heard.key
    assert MAX_RESOURCES > 1


def test_many_notices_cause_few_discoveries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SETTLE", 0.01)
    monkeypatch.setattr(listening, "QUIET", 0.2)
    found: list[float] = []

    async def listen(upstream: Upstream, wanted: Any, to: Notices) -> None:
        while True:
            await to.notify("notifications/message", {})
            await to.notify(min(LIST_CHANGES), {})
            await asyncio.sleep(0.005)

    async def discover(server: UpstreamServer) -> None:
        found.append(asyncio.get_running_loop().time())

    monkeypatch.setattr(exchange, "listen", listen)

    async def story() -> None:
        task = asyncio.create_task(Listener(Heard(ACME), discover).run())
        while len(found) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story())
    assert all(b - a >= 0.19 for a, b in zip(found, found[1:], strict=False))


def test_listeners_follow_their_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    open_streams: list[str] = []
    rows = [UpstreamServer(name="a", url="https://a.example/mcp")]

    async def listen(upstream: Upstream, wanted: Any, to: Notices) -> None:
        open_streams.append(upstream.row.url)
        try:
            await asyncio.Event().wait()
        finally:
            open_streams.remove(upstream.row.url)

    async def leases(work: Any, held: Any) -> Any:
        heard = [Heard(Upstream(1, "a", True, row, None)) for row in rows]
        return [(one, timezone.now()) for one in heard]

    monkeypatch.setattr(exchange, "listen", listen)
    monkeypatch.setattr(listening, "in_database", leases)

    async def story() -> None:
        listeners = Listeners(lambda server: asyncio.sleep(0))
        await listeners.renew()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert open_streams == ["https://a.example/mcp"]
        rows[0] = UpstreamServer(name="a", url="https://b.example/mcp")
        await listeners.renew()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert open_streams == ["https://b.example/mcp"]
        rows.clear()
        await listeners.renew()
        assert open_streams == [] and listeners.tasks == {}

    run(story())


@pytest.mark.parametrize(
    ("end", "pause"),
    [
        (None, listening.AGAIN),
        (UpstreamProblem("broken", ""), listening.AGAIN),
        (UpstreamProblem("status", ""), listening.UNSUPPORTED),
        (MCPError(-32601, "no"), listening.UNSUPPORTED),
    ],
    ids=["end", "broken", "status", "error"],
)
def test_a_server_without_a_stream_is_asked_again_an_hour_later(
    monkeypatch: pytest.MonkeyPatch, end: Exception | None, pause: float
) -> None:
    async def listen(*_: Any) -> None:
        if end is not None:
            raise end

    async def sleep(seconds: float) -> None:
        assert 0.79 * pause < seconds < 1.21 * pause
        raise asyncio.CancelledError

    async def discover(server: UpstreamServer) -> None:
        raise AssertionError

    monkeypatch.setattr(exchange, "listen", listen)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        run(Listener(Heard(ACME), discover).keep_listening())


def test_a_stream_depends_on_all_that_it_was_opened_with() -> None:
    """A new URL or secret, or other resources, open another one."""

    def heard(pk: int, url: str, version: int, *resources: str) -> Heard:
        row = UpstreamServer(name="a", url=url)
        credential = UpstreamCredential(version=version)
        return Heard(Upstream(pk, "a", True, row, credential), resources)

    same = [heard(1, "https://a.example/", 1, "n://1").key for _ in range(2)]
    others = [
        heard(2, "https://a.example/", 1, "n://1").key,
        heard(1, "https://b.example/", 1, "n://1").key,
        heard(1, "https://a.example/", 2, "n://1").key,
        heard(1, "https://a.example/", 1).key,
    ]
    assert len({*same, *others}) == 5


@pytest.mark.django_db
def test_one_process_listens_to_a_server() -> None:
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    assert take_leases({}) == [], "it was not discovered yet"
    UpstreamStatus.objects.create(upstream=server)
    ((heard, until),) = take_leases({})
    assert heard.upstream.pk == server.pk and until > timezone.now()
    assert take_leases({}) == [], "another process"
    ((_, later),) = take_leases({server.pk: until})
    assert later > until
    UpstreamStatus.objects.update(listening_until=timezone.now() - timedelta(seconds=1))
    assert len(take_leases({})) == 1, "the other process has ended"
    UpstreamServer.objects.update(enabled=False)
    UpstreamStatus.objects.update(listening_until=None)
    assert take_leases({}) == [], "it is disabled"


@pytest.mark.django_db
def test_a_lease_of_another_process_is_not_taken_with_an_old_one() -> None:
    """A process that slept has lost its lease."""
    server = UpstreamServer.objects.create(name="acme", url="https://a.example/mcp")
    own = UpstreamCredential.objects.create(upstream=server, version=7)
    UpstreamStatus.objects.create(upstream=server)
    ((heard, mine),) = take_leases({})
    assert heard.upstream.credential == own
    UpstreamStatus.objects.update(listening_until=mine + timedelta(seconds=9))
    assert take_leases({server.pk: mine}) == []


def test_a_listener_that_ended_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy database delays the next look; the end stops all."""
    begun: list[str] = []
    looks: list[Exception | None] = [DatabaseError("busy"), None, None]

    async def listen(*_: Any) -> None:
        begun.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            begun.append("ended")

    async def leases(work: Any, held: Any) -> Any:
        problem = looks.pop(0) if looks else None
        if problem is not None:
            raise problem
        return [(Heard(ACME), timezone.now())]

    monkeypatch.setattr(exchange, "listen", listen)
    monkeypatch.setattr(listening, "in_database", leases)
    monkeypatch.setattr(listening, "EVERY", 0.001)

    async def story() -> None:
        listeners = Listeners(lambda server: asyncio.sleep(0))
        task = asyncio.create_task(listeners.run())
        await until(lambda: begun == ["begun"])
        (running,) = listeners.tasks.values()
        running.cancel()
        await until(lambda: begun == ["begun", "ended", "begun"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert begun[-1] == "ended" and listeners.tasks == {}

    run(story())


def test_only_a_changed_list_leads_to_a_discovery() -> None:
    async def story() -> None:
        notices = Notices(["n://1"])
        await notices.notify("notifications/progress", {})
        await notices.notify(UPDATED, {"uri": "n://1"})
        assert not notices.changed.is_set() and notices.updated == {"n://1"}
        for kind in ("tools", "resources", "prompts"):
            again = Notices()
            await again.notify(f"notifications/{kind}/list_changed", {"uri": "n://1"})
            assert again.changed.is_set() and again.updated == set()

    run(story())


def test_an_update_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each count makes every worker read its rules."""
    monkeypatch.setattr(listening, "SETTLE", 0.0)
    monkeypatch.setattr(listening, "COUNT_EVERY", 0.0)
    counted: list[list[str]] = []

    async def database(work: Any, pk: int, uris: list[str]) -> None:
        counted.append(uris)

    monkeypatch.setattr(listening, "in_database", database)

    async def story() -> None:
        listener = Listener(HEARD, lambda server: asyncio.sleep(0))
        task = asyncio.create_task(listener.keep_counting())
        for number, uri in enumerate(HEARD.resources, 1):
            await listener.notices.notify(UPDATED, {"uri": uri})
            await until(lambda n=number: len(counted) == n)  # type: ignore[misc]
        task.cancel()

    run(story())
    assert counted == [["note://a"], ["note://b"]]


def test_a_notice_during_a_discovery_leads_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What changed may not have been seen."""
    monkeypatch.setattr(listening, "SETTLE", 0.0)
    monkeypatch.setattr(listening, "QUIET", 0.0)
    found: list[int] = []

    async def discover(server: UpstreamServer) -> None:
        found.append(len(found))
        if len(found) == 1:
            await listener.notices.notify(min(LIST_CHANGES), {})

    async def story() -> None:
        task = asyncio.create_task(listener.keep_discovering())
        await listener.notices.notify(min(LIST_CHANGES), {})
        await until(lambda: len(found) == 2)
        await asyncio.sleep(0.01)
        task.cancel()
        assert found == [0, 1] and not listener.notices.changed.is_set()

    listener = Listener(HEARD, discover)
    run(story())


@pytest.mark.django_db
def test_a_process_listens_to_a_bounded_number_of_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And to resources only: nobody subscribes to prompts."""
    monkeypatch.setattr(listening, "MAX_SERVERS", 2)
    for name in ("a", "b", "c"):
        server = UpstreamServer.objects.create(name=name, url=f"https://{name}.io/")
        UpstreamStatus.objects.create(upstream=server)
        for kind in ("prompt", "resource_template", "resource"):
            uri = f"{kind}://{name}"
            Primitive.objects.create(
                kind=kind, name=uri, upstream_name=uri, upstream=server
            )
    heard = [one for one, _until in take_leases({})]
    assert [one.upstream.name for one in heard] == ["a", "b"]
    assert [one.resources for one in heard] == [("resource://a",), ("resource://b",)]
