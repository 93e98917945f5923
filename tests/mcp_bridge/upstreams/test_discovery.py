"""Discovery against the SDK's own server, over HTTP, in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, METHOD_NOT_FOUND

from accounts.http.outbound_calls import CallInTransaction
from mcp_bridge.models import (
    DefinitionState,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import discovery, exchange
from mcp_bridge.upstreams.discovery import (
    Discovery,
    Explorer,
    Found,
    as_upstream,
    begin,
    discover,
    look,
    store,
    store_problem,
)
from mcp_bridge.upstreams.problems import Outcome, UpstreamProblem
from tests.support.model_rows import person
from tests.support.upstream import Upstream, sdk_upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with sdk_upstream() as running:
        yield running


def server_at(url: str, **values: Any) -> UpstreamServer:
    return UpstreamServer(name="other", prefix="other", url=url, **values)


@pytest.mark.parametrize("protocol", ["auto", "2026-07-28", "legacy"])
def test_both_eras_offer_the_same(upstream: Upstream, protocol: str) -> None:
    seen = look(server_at(upstream.url, protocol=protocol), None)
    names = {offer.name for offer in seen.offers}
    assert {"other__add", "note://one", "note://by/{name}", "other__greet"} <= names
    assert (seen.server_name, seen.server_version) == ("Other", "1.2.3")
    assert (seen.protocol == "2026-07-28") == (protocol != "legacy")
    assert not any(offer.problem for offer in seen.offers)


def test_a_server_needs_no_row_to_be_looked_at(upstream: Upstream) -> None:
    assert look(server_at(upstream.url), None).latency_ms > 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/mcp", "unreachable"),
        ("http://10.1.2.3/mcp", "private_address"),
        ("http://169.254.169.254/mcp", "private_address"),
        ("http://[::ffff:10.0.0.1]/mcp", "private_address"),
        ("http://no-such-host.invalid/mcp", "unreachable"),
    ],
)
def test_an_unusable_address_is_a_problem_with_its_code(url: str, code: str) -> None:
    with pytest.raises(UpstreamProblem) as problem:
        look(server_at(url), None)
    assert problem.value.code == code


def test_the_error_of_a_private_address_names_the_setting() -> None:
    with pytest.raises(UpstreamProblem, match="UPSTREAM_PRIVATE_NETWORKS"):
        look(server_at("http://192.168.7.7/mcp"), None)


@pytest.mark.django_db
def test_nothing_is_asked_inside_a_transaction(upstream: Upstream) -> None:
    with transaction.atomic(), pytest.raises(CallInTransaction):
        look(server_at(upstream.url), None)


@pytest.mark.django_db
def test_discover_holds_new_definitions_and_stores_the_status(
    upstream: Upstream,
) -> None:
    server = server_at(upstream.url)
    server.save()
    assert discover(server)["added"] >= 6
    row = Primitive.objects.get(kind="tool", name="other__add")
    assert (row.state, row.upstream_name) == (DefinitionState.HELD, "add")
    status = UpstreamStatus.objects.get(upstream=server)
    assert (status.server_name, status.error) == ("Other", "")
    assert not any(discover(server).values())


@pytest.mark.django_db
def test_a_failed_discovery_stores_its_reason_and_keeps_the_rows(
    upstream: Upstream,
) -> None:
    server = server_at(upstream.url)
    server.save()
    discover(server)
    server.url = "http://127.0.0.1:1/mcp"
    with pytest.raises(UpstreamProblem):
        discover(server)
    gone = Primitive.objects.filter(upstream=server, state=DefinitionState.GONE)
    assert not gone.exists()
    assert "cannot be reached" in UpstreamStatus.objects.get(upstream=server).error


@pytest.mark.django_db
def test_one_process_discovers_at_a_time(upstream: Upstream) -> None:
    server = server_at(upstream.url)
    server.save()
    UpstreamStatus.objects.create(
        upstream=server, discovering_until=timezone.now() + timedelta(seconds=9)
    )
    with pytest.raises(UpstreamProblem) as problem:
        discover(server)
    assert problem.value.code == "busy"


@pytest.mark.django_db
def test_the_credential_is_the_shared_one_of_the_server() -> None:
    """Its state is that of the last discovery."""
    user = person("alice")
    for name in ("first", "other"):
        server = UpstreamServer.objects.create(
            name=name, prefix=name, url="http://127.0.0.1:1/mcp"
        )
        UpstreamCredential.objects.create(upstream=server, user=user)
        UpstreamCredential.objects.create(upstream=server, state="rejected")
    found = begin(server)
    assert found is not None and (found.upstream, found.user) == (server, None)
    refused = UpstreamProblem("credential", "Rejected.")
    seen = Found("", "", "", "", (), 0.0, "")
    for finish, state in (
        (lambda: store(server, seen), "valid"),
        (lambda: store_problem(server, UpstreamProblem("timeout", "")), "valid"),
        (lambda: store_problem(server, refused), "rejected"),
    ):
        finish()
        states = UpstreamCredential.objects.filter(user=None).order_by("pk")
        assert list(states.values_list("state", flat=True)) == ["rejected", state]
        assert begin(server) is not None, "the lease has ended"
    others = UpstreamCredential.objects.exclude(user=None)
    assert set(others.values_list("state", flat=True)) == {"valid"}


class Scripted(Discovery):
    """Answers with the given pages, or forever."""

    left: list[dict[str, Any]]
    asked = 0

    def __init__(self, *pages: dict[str, Any]) -> None:
        upstream = as_upstream(server_at("http://127.0.0.1:1/mcp"), None)
        super().__init__(upstream, Explorer())
        object.__setattr__(self, "left", list(pages))

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self.left:
            return self.left.pop(0)
        object.__setattr__(self, "asked", self.asked + 1)
        return {"tools": [{}], "nextCursor": str(self.asked)}


def read(*pages: dict[str, Any]) -> tuple[int, str]:
    """(items, why cut) of a server that answers with these pages."""
    work = Scripted(*pages).pages("tools/list", "tools")
    items, cut = asyncio.run(work)
    return len(items), cut


def test_every_page_is_read() -> None:
    first = {"tools": [{}, {}], "nextCursor": ""}
    assert read(first, {"tools": [{}]}) == (3, "")


def test_a_repeated_cursor_ends_the_reading() -> None:
    page = {"tools": [{}], "nextCursor": "a"}
    assert read(page, page) == (2, "tools/list repeats a cursor.")


def test_endless_pages_end() -> None:
    count, cut = read()
    assert count == discovery.MAX_PAGES
    assert "more than 100 pages" in cut


def test_a_list_that_is_too_long_is_cut() -> None:
    assert read({"tools": [{}] * discovery.MAX_ITEMS}) == (discovery.MAX_ITEMS, "")
    count, cut = read({"tools": [{}] * 5_000})
    assert count == discovery.MAX_ITEMS
    assert "more than 2000 entries" in cut


def test_an_answer_without_a_list_is_a_problem() -> None:
    with pytest.raises(UpstreamProblem, match="no list of tools"):
        read({"tools": "none"})


@pytest.mark.parametrize("code", [METHOD_NOT_FOUND, INTERNAL_ERROR])
def test_only_a_list_that_is_not_offered_is_left_out(code: int) -> None:
    """With any other error the discovery fails, and nothing is taken for gone."""

    class Partly(Scripted):
        async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
            if method == "tools/list":
                return {"tools": [{}]}
            raise MCPError(code, "no")

    reading = Partly().items({"capabilities": {"tools": {}, "prompts": {}}})
    if code == METHOD_NOT_FOUND:
        assert asyncio.run(reading) == ([("tool", {})], {})
        return
    with pytest.raises(MCPError):
        asyncio.run(reading)


@pytest.mark.parametrize("capability", ["tools", "prompts"])
def test_the_kind_whose_list_was_cut_is_named(capability: str) -> None:
    """What a cut list lacks is not taken for gone."""

    class Cut(Scripted):
        async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
            member = method.partition("/")[0]
            more = {"nextCursor": "a"} if member == capability else {}
            return {member: [{}], **more}

    reading = Cut().items({"capabilities": {"tools": {}, "prompts": {}}})
    found, cuts = asyncio.run(reading)
    assert list(cuts) == [capability.removesuffix("s")] and len(found) == 3


INFO = {"name": "n", "title": "Title", "version": "2"}


@pytest.mark.parametrize(
    ("about", "shown"),
    [
        ({"serverInfo": INFO}, ("Title", "2")),
        ({"_meta": {"io.modelcontextprotocol/serverInfo": INFO}}, ("Title", "2")),
        ({"serverInfo": {"name": "n"}, "_meta": None}, ("n", "")),
        (
            {"serverInfo": INFO, "_meta": {"io.modelcontextprotocol/serverInfo": {}}},
            ("Title", "2"),
        ),
        ({"serverInfo": [], "_meta": []}, ("", "")),
    ],
)
def test_what_a_server_says_of_itself(about: Any, shown: tuple[str, str]) -> None:
    """In both eras, and in any form."""
    about = {**about, "instructions": "x" * 20_000}
    seen = discovery.found("2026-07-28", about, [], 1.23, {"tool": "Too long."})
    assert (seen.server_name, seen.server_version) == shown
    assert len(seen.instructions) == 10_000 and seen.latency_ms == 1.2
    assert (seen.truncated, seen.cut) == ("Too long.", frozenset({"tool"}))


@pytest.mark.django_db
def test_a_cut_list_is_an_error_and_takes_nothing_away() -> None:
    server = server_at("https://a.example/mcp")
    server.save()
    row = Primitive.objects.create(
        kind="tool", name="other__a", upstream_name="a", upstream=server
    )
    before = timezone.now()
    seen = Found("", "", "", "", (), 0.0, "Too long.", frozenset({"tool"}))
    store(server, seen)
    status = UpstreamStatus.objects.get(upstream=server)
    assert status.error == "Too long."
    assert status.contacted_at is not None and status.contacted_at >= before
    row.refresh_from_db()
    assert row.state != DefinitionState.GONE
    store(server, Found("", "", "", "", (), 0.0, ""))
    row.refresh_from_db()
    assert row.state == DefinitionState.GONE


def test_an_error_of_the_server_is_a_short_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def about(self: Discovery) -> tuple[str, dict[str, Any]]:
        raise MCPError(INTERNAL_ERROR, "no\n" + "x" * 300)

    monkeypatch.setattr(Discovery, "about", about)
    server = as_upstream(server_at("http://127.0.0.1:1/mcp"), None)
    with pytest.raises(UpstreamProblem, match=r"an error: no x{197}$") as caught:
        asyncio.run(discovery.explore(server))
    assert caught.value.outcome == Outcome.ERROR


@pytest.mark.parametrize("fails", [False, True])
def test_a_discovery_ends_its_session_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """It is not that of calls, which stays open."""
    ended: list[str] = []

    async def about(self: Discovery) -> tuple[str, dict[str, Any]]:
        if fails:
            raise MCPError(INTERNAL_ERROR, "no")
        return "2025-11-25", {}

    def end(upstream: Any, explorer: Any) -> None:
        ended.append(explorer.session)

    monkeypatch.setattr(Discovery, "about", about)
    monkeypatch.setattr(exchange, "end_session", end)
    server = as_upstream(server_at("http://127.0.0.1:1/mcp"), None)
    for _ in range(2):
        if fails:
            with pytest.raises(UpstreamProblem, match="answered with an error: no"):
                asyncio.run(discovery.explore(server))
        else:
            asyncio.run(discovery.explore(server))
    assert len(set(ended)) == 2, "two discoveries share no session"


def test_a_look_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event loop ends with it."""
    done: list[Any] = []
    seen = Found("", "", "", "", (), 0.0, "")

    async def explore(upstream: Any) -> Found:
        done.append("asked")
        return seen

    async def background_done() -> None:
        done.append("told")

    async def close_client_of(pk: int | None) -> None:
        done.append(("closed", pk))

    monkeypatch.setattr(discovery, "explore", explore)
    monkeypatch.setattr(exchange, "background_done", background_done)
    monkeypatch.setattr(discovery, "close_client_of", close_client_of)
    assert look(server_at("http://127.0.0.1:1/mcp", pk=5), None) is seen
    assert done == ["asked", "told", ("closed", 5)]


def test_a_discovery_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def about(self: Discovery) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(discovery, "SECONDS", 0.01)
    monkeypatch.setattr(Discovery, "about", about)
    server = as_upstream(server_at("http://127.0.0.1:1/mcp"), None)
    with pytest.raises(UpstreamProblem, match="did not answer in 0.01 s") as late:
        asyncio.run(discovery.explore(server))
    assert (late.value.code, late.value.outcome) == ("timeout", Outcome.TIMED_OUT)


def test_a_discovery_asks_for_the_protocol_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server may have been upgraded since."""
    upstream = as_upstream(server_at("http://127.0.0.1:1/upgraded"), None)
    key = upstream.pk, upstream.row.url

    async def detect(server: Any, principal: Any) -> str:
        return exchange.MODERN

    async def ask(self: Discovery, method: str, params: Any) -> dict[str, Any]:
        return {"asked": method}

    monkeypatch.setitem(exchange._protocols, key, exchange.LEGACY)
    monkeypatch.setattr(exchange, "detect", detect)
    monkeypatch.setattr(Discovery, "ask", ask)
    found = asyncio.run(Discovery(upstream, Explorer()).about())
    assert found == (exchange.MODERN, {"asked": "server/discover"})
    assert exchange._protocols[key] == exchange.MODERN


@pytest.mark.django_db
def test_all_that_was_found_is_stored() -> None:
    server = server_at("https://a.example/mcp")
    server.save()
    UpstreamStatus.objects.create(upstream=server, error="Old.")
    before = timezone.now()
    store(server, Found("Shop", "1.2", "2025-11-25", "", (), 12.5, ""))
    status = UpstreamStatus.objects.get()
    found = status.server_name, status.server_version, status.protocol
    assert found == ("Shop", "1.2", "2025-11-25")
    assert (status.latency_ms, status.error) == (12.5, "")
    assert status.checked_at is not None and status.checked_at >= before
    assert status.discovering_until is None
    UpstreamStatus.objects.update(checked_at=None, contacted_at=None)
    store_problem(server, UpstreamProblem("timeout", "x" * 900))
    status.refresh_from_db()
    assert status.checked_at is not None and status.contacted_at is None
    assert status.error == "x" * 500


@pytest.mark.django_db
@pytest.mark.parametrize(("ago", "free"), [(None, True), (1, True), (-1, False)])
def test_a_lease_ends_by_itself(ago: int | None, free: bool) -> None:
    """Its process may have been killed."""
    server = server_at("https://a.example/mcp")
    server.save()
    until = None if ago is None else timezone.now() - timedelta(seconds=ago)
    UpstreamStatus.objects.create(upstream=server, discovering_until=until)
    if free:
        begin(server)
    with pytest.raises(UpstreamProblem, match="Another process"):
        begin(server)
