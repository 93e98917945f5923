"""The HTTP client of upstream servers: redirects, connections and bounded answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import aiohttp
import pytest

from mcp_bridge.access.catalogue import Upstream
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import http_client
from mcp_bridge.upstreams.http_client import (
    client_for,
    close_client_of,
    close_clients,
    delete,
    events,
    get,
    import_client,
    post,
    read_limited,
)
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem
from tests.support.asgi import run

BODY = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
Verb = Callable[[Upstream], Awaitable[Any]]


class Server:
    """Answers with these statuses in turn, the last one again; keeps the heads."""

    def __init__(self, *statuses: int, location: str = "/moved") -> None:
        self.statuses, self.location = list(statuses), location
        self.heads: list[str] = []
        self.origin = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "ontent-Length: " in head:
            await reader.readexactly(
                int(head.partition("ontent-Length: ")[2].split()[0])
            )
        self.heads.append(head)
        status = self.statuses.pop(0) if self.statuses[1:] else self.statuses[0]
        if status:
            lines = [f"HTTP/1.1 {status} X", "Set-Cookie: a=b", "Content-Length: 2"]
            lines += [f"Location: {self.location.format(self.origin)}"]
            writer.write("\r\n".join([*lines, "Connection: close", "", "ok"]).encode())
        writer.close()

    @property
    def asked(self) -> list[str]:
        """Method and path of each request, without the random part."""
        words = [head.split() for head in self.heads]
        return [f"{method} {path[:6]}" for method, path, *_ in words]

    def tell(self, story: Verb) -> Any:
        """Run `story` with an upstream server that answers so."""

        async def told() -> Any:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            self.origin = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                return await story(upstream(f"http://{self.origin}/first-{uuid4()}"))
            finally:
                await close_clients()
                server.close()

        return run(told())


def upstream(url: str, pk: int = 8) -> Upstream:
    return Upstream(pk, "acme", True, UpstreamServer(name="acme", url=url), None)


async def posted(server: Upstream) -> tuple[int, bytes]:
    async with post(server, BODY, {"authorization": "secret"}) as response:
        return response.status, await read_limited(response, "acme")


async def got(server: Upstream) -> tuple[int, bytes]:
    async with get(server, {"authorization": "secret"}) as response:
        return response.status, await read_limited(response, "acme")


async def deleted(server: Upstream) -> None:
    await delete(server, {"authorization": "secret"})


async def problem_of(verb: Verb, server: Upstream) -> UpstreamProblem:
    with pytest.raises(UpstreamProblem) as raised:
        await verb(server)
    return raised.value


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", ["/moved", "http://{}/moved"])
def test_a_redirect_within_the_server_repeats_the_request(
    status: int, location: str
) -> None:
    server = Server(status, status, 200, location=location)
    assert server.tell(posted) == (200, b"ok")
    assert server.asked == ["POST /first", "POST /moved", "POST /moved"]
    assert all("secret" in head for head in server.heads)


def test_a_redirect_in_a_circle_ends() -> None:
    server = Server(307)
    found = server.tell(lambda up: problem_of(posted, up))
    assert (found.code, found.breaks, len(server.heads)) == ("redirect", False, 3)


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (307, "https://{}/moved"),
        (307, "http://localhost/moved"),
        (308, "//other.example/moved"),
        (301, "/moved"),
        (302, "/moved"),
        (303, "/moved"),
    ],
)
def test_other_redirects_are_answers(status: int, location: str) -> None:
    """The secret stays with its server."""
    server = Server(status, location=location)
    assert server.tell(posted)[0] == status and len(server.heads) == 1


def test_get_and_delete_follow_no_redirect() -> None:
    for verb in (got, deleted):
        server = Server(307)
        server.tell(verb)
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("verb", "outcome"),
    [
        (posted, Outcome.MAY_HAVE_RUN),
        (got, Outcome.REFUSED),
        (deleted, Outcome.REFUSED),
    ],
)
def test_a_connection_that_breaks_is_a_problem(verb: Verb, outcome: Outcome) -> None:
    found = Server(0).tell(lambda up: problem_of(verb, up))
    assert (found.code, found.outcome) == ("broken", outcome)


@pytest.mark.parametrize("verb", [posted, got, deleted])
def test_a_private_address_is_not_contacted(verb: Verb, settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example"
    settings.UPSTREAM_PRIVATE_NETWORKS = []
    server = Server(200)
    found = server.tell(lambda up: problem_of(verb, up))
    assert (found.code, server.heads) == ("private_address", [])


@pytest.mark.parametrize("verb", [posted, got, deleted])
def test_a_server_that_is_not_there_is_a_problem(verb: Verb) -> None:
    async def story() -> UpstreamProblem:
        try:
            return await problem_of(verb, upstream("http://127.0.0.1:1/mcp"))
        finally:
            await close_clients()

    found = run(story())
    expected = ("unreachable", True) if verb is posted else ("broken", False)
    assert (found.code, found.breaks) == expected


@pytest.mark.parametrize("error", [aiohttp.ConnectionTimeoutError, TimeoutError])
def test_only_a_timeout_of_the_connection_is_the_servers(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The other one is that of the call, which says so itself."""

    def fail(*about: Any, **options: Any) -> Any:
        raise error

    client = SimpleNamespace(post=fail)
    monkeypatch.setattr(http_client, "client_for", lambda server: client)
    if error is TimeoutError:
        with pytest.raises(TimeoutError):
            run(posted(upstream("http://127.0.0.1:1/mcp")))
        return
    found = run(problem_of(posted, upstream("http://127.0.0.1:1/mcp")))
    assert (found.code, found.outcome, found.breaks) == (
        "unreachable",
        Outcome.REFUSED,
        True,
    )


def test_a_server_keeps_its_client_until_its_url_changes() -> None:
    async def story() -> None:
        first, other = upstream("http://a.example/mcp"), upstream("http://b.example/")
        client = client_for(first)
        assert client_for(upstream("http://a.example/mcp")) is client
        assert client_for(other) is not client
        assert client_for(upstream("http://a.example/mcp", pk=9)) is not client
        await close_client_of(9)
        assert not client.closed
        await close_client_of(8)
        assert client.closed and client_for(first) is not client
        again = client_for(first)
        await close_clients()
        assert again.closed

    run(story())


def test_the_library_is_imported_in_a_thread_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls that arrive during the import wait for it; the event loop goes on."""
    importing: list[str] = []
    turns = 0

    def slow(name: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        importing.append(name)
        time.sleep(0.1)

    async def story() -> None:
        nonlocal turns
        waiting = [asyncio.create_task(import_client()) for _ in range(2)]
        while not any(task.done() for task in waiting):
            assert not http_client._client_imported
            await asyncio.sleep(0.01)
            turns += 1
        await asyncio.gather(*waiting)
        assert http_client._client_imported
        await import_client()

    monkeypatch.setattr(http_client, "import_module", slow)
    monkeypatch.setattr(http_client, "_client_imported", False)
    run(story())
    assert importing == ["mcp_bridge.upstreams.resolver"] * 2 and turns > 2


def test_cookies_are_not_kept() -> None:
    """All callers share the client. aiohttp keeps none of an address anyway."""
    server = Server(200)

    async def story(up: Upstream) -> None:
        named = upstream(up.row.url.replace("127.0.0.1", "localhost"))
        for _ in range(2):
            await posted(named)

    server.tell(story)
    assert len(server.heads) == 2
    assert not any("ookie" in head for head in server.heads)


def answer(*parts: bytes) -> aiohttp.ClientResponse:
    """A response whose body arrives in these parts."""

    async def iter_any() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    found = SimpleNamespace(content=SimpleNamespace(iter_any=iter_any))
    return cast(aiohttp.ClientResponse, found)


def parsed(*parts: bytes) -> list[bytes]:
    async def story() -> list[bytes]:
        return [data async for data in events(answer(*parts), "acme")]

    return run(story())


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([b"data: a\n\n"], [b"a"]),
        ([b"data:a\n\n"], [b"a"]),
        ([b"data:  a\n\n"], [b" a"]),
        ([b"data: a\r\n\r\ndata: b\r\n\r\n"], [b"a", b"b"]),
        ([b"data: a\r", b"\n\r", b"\ndata: b\n\n"], [b"a", b"b"]),
        ([b"data: a\r", b"\ndata: b\r\n\r\n"], [b"a\nb"]),
        ([b"da", b"ta: a", b"b\n", b"\n"], [b"ab"]),
        ([b"data: a\ndata: b\n\n"], [b"a\nb"]),
        ([b": ping\n\nid: 1\nevent: message\ndata: a\n\n"], [b"a"]),
        ([b"\n\n: ping\n\n"], []),
        ([b"data: a\n"], []),
        ([b"data: a"], []),
    ],
    ids=repr,
)
def test_events_are_read_as_they_arrive(parts: list[bytes], found: list[bytes]) -> None:
    assert parsed(*parts) == found


@pytest.mark.parametrize(
    ("parts", "fits"),
    [
        ([b"data: 12345\n\n"] * 5, True),
        ([b"data: 12345\ndata: 67890\n", b"\n"], True),
        ([b"data: 12345\ndata: 678901\n", b"\n"], False),
        ([b"data: 12", b"345678901"], False),
        ([b"data: 12345\n", b"123456"], False),
    ],
    ids=repr,
)
def test_one_event_is_bounded(
    monkeypatch: pytest.MonkeyPatch, parts: list[bytes], fits: bool
) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY", 10)
    if fits:
        assert parsed(*parts)
        return
    with pytest.raises(UpstreamProblem) as raised:
        parsed(*parts)
    assert (raised.value.code, raised.value.outcome) == ("too_large", Outcome.ERROR)


@pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
def test_a_body_is_bounded(
    monkeypatch: pytest.MonkeyPatch, size: int, fits: bool
) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY", 10)
    whole = read_limited(answer(b"x" * 4, b"x" * (size - 4)), "acme")
    if fits:
        assert run(whole) == b"x" * size
        return
    with pytest.raises(UpstreamProblem, match="The answer of the upstream server acme"):
        run(whole)


def test_a_server_gets_a_connection_for_each_of_its_places() -> None:
    """And some for notices meanwhile."""

    async def story() -> None:
        row = UpstreamServer(name="a", url="http://a.example/", max_concurrency=30)
        client = client_for(Upstream(8, "a", True, row, None))
        connector = client.connector
        assert connector is not None and connector.limit == 38
        other = client_for(upstream("http://b.example/", pk=9))
        await close_client_of(8)
        assert client.closed and not other.closed
        await close_clients()

    run(story())


def test_a_client_that_was_closed_is_replaced() -> None:
    async def story() -> None:
        server = upstream("http://a.example/closed")
        client = client_for(server)
        await client.close()
        again = client_for(server)
        assert again is not client and not again.closed
        assert again.timeout.sock_connect == http_client.CONNECT_SECONDS
        assert again.timeout.total is None, "calls have their own time"
        await close_clients()

    run(story())


def test_half_a_surrogate_pair_is_sent_as_it_came() -> None:
    """An argument may be any text of JSON."""
    server = Server(200)

    async def story(up: Upstream) -> int:
        body = {**BODY, "params": {"a": "\ud800"}}
        async with post(up, body, {}) as response:
            return response.status

    assert server.tell(story) == 200


def test_a_name_that_leads_to_a_private_address_is_that_problem(settings: Any) -> None:
    """It is found when the name is resolved, not in the URL."""
    settings.ISSUER_URL = "https://portico.example"
    settings.UPSTREAM_PRIVATE_NETWORKS = []
    server = Server(200)

    async def story(up: Upstream) -> UpstreamProblem:
        named = upstream(up.row.url.replace("127.0.0.1", "localhost"))
        return await problem_of(posted, named)

    found = server.tell(story)
    assert (found.code, found.breaks) == ("private_address", False)
    assert "UPSTREAM_PRIVATE_NETWORKS" in found.text and server.heads == []
