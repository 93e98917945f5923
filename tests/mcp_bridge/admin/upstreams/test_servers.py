"""Upstream servers in the admin: look, save, list, disable."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.utils import timezone

from accounts.models import AuditEvent, User
from mcp_bridge.admin.upstreams import figures, servers
from mcp_bridge.models import (
    Offer,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.credentials import secret_of
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db
LIST = "/admin/mcp_bridge/upstreamserver/"
ADD = f"{LIST}add/"
SENT = {
    "name": "shop",
    "url": "https://mcp.example.com/mcp",
    "prefix": "shop",
    "enabled": "on",
    "new_definitions": "hold",
    "credential_mode": "none",
    "protocol": "auto",
    "call_timeout": "60",
    "max_concurrency": "50",
}
BASIC = UpstreamCredential.ClientAuthentication.BASIC.value
HEADER = {**SENT, "credential_mode": "static_header", "header": "Authorization"}


class Elsewhere:
    """The server that a look contacts: what it offers, and what it was sent."""

    def __init__(self) -> None:
        self.offers: tuple[Offer, ...] = (self.offer("Sells."),)
        self.secrets: list[str] = []
        self.down = False

    def offer(self, text: str) -> Offer:
        shown = {"name": "shop__sell", "description": text, "inputSchema": {}}
        return Offer("tool", "shop__sell", "", text, (), False, text, shown, "sell")

    def look(self, server: UpstreamServer, credential: Any) -> discovery.Found:
        self.secrets.append(secret_of(credential) if credential else "")
        if self.down:
            raise UpstreamProblem("timeout", "No answer. Try again later.")
        return discovery.Found("Shop", "1.0", "2025-11-25", "", self.offers, 3.5, "")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Elsewhere:
    settings.STORAGES = UNCOLLECTED
    double = Elsewhere()
    monkeypatch.setattr(discovery, "look", double.look)
    return double


def root() -> User:
    return account("carol", is_staff=True, is_superuser=True)


def messages_of(answer: Any) -> list[str]:
    return [str(one) for one in get_messages(answer.wsgi_request)]


def hidden(page: Any) -> dict[str, str]:
    """What the page of a look sends back."""
    looked = page.context["looked"]
    return {"kept": looked.kept, "mark": looked.mark}


def test_a_look_saves_nothing_and_saving_holds_what_was_seen(
    elsewhere: Elsewhere,
) -> None:
    browser = browser_of(root())
    page = browser.post(ADD, {**SENT, "_look": "1"})
    text = page.content.decode()
    assert "shop__sell" in text and "It offers 1 definition." in text
    assert not UpstreamServer.objects.exists()
    answer = browser.post(ADD, {**SENT, **hidden(page), "_save": "1"})
    server = UpstreamServer.objects.get()
    assert answer["Location"] == f"/admin/definitions/?upstream={server.pk}"
    assert messages_of(answer) == ["shop: 1 new, 0 changed, 0 gone."]
    assert server.primitives.get().state == "held"
    assert server.status.server_name == "Shop"
    event = AuditEvent.objects.get(action="upstream.added")
    assert (event.actor, event.object) == ("carol", "shop")
    assert event.address == "127.0.0.1"


def test_other_definitions_than_those_seen_are_not_saved(elsewhere: Elsewhere) -> None:
    browser = browser_of(root())
    page = browser.post(ADD, {**SENT, "_look": "1"})
    elsewhere.offers = (elsewhere.offer("Steals."),)
    again = browser.post(ADD, {**SENT, **hidden(page), "_save": "1"})
    assert "Steals." in again.content.decode() and not UpstreamServer.objects.exists()


def test_the_secret_is_entered_once_and_never_shown(elsewhere: Elsewhere) -> None:
    """A token alone is sent as a bearer token; the page keeps it sealed."""
    browser = browser_of(root())
    page = browser.post(ADD, {**HEADER, "secret": "s3cr3t-token", "_look": "1"})
    assert "s3cr3t" not in page.content.decode()
    browser.post(ADD, {**HEADER, **hidden(page), "_save": "1"})
    assert elsewhere.secrets == ["Bearer s3cr3t-token"] * 2
    row = UpstreamCredential.objects.get()
    assert secret_of(row) == "Bearer s3cr3t-token"
    assert "s3cr3t" not in row.secret_encrypted
    shown = browser.get(f"{LIST}{row.upstream_id}/change/").content.decode()
    assert "s3cr3t" not in shown
    assert not AuditEvent.objects.filter(changes__icontains="s3cr3t").exists()


@pytest.mark.parametrize(
    "change",
    [{"url": "https://evil.example/mcp"}, {"url": "http://mcp.example.com/mcp"}],
)
def test_a_kept_secret_goes_to_no_other_server(
    elsewhere: Elsewhere, change: dict[str, str]
) -> None:
    browser = browser_of(root())
    page = browser.post(ADD, {**HEADER, "secret": "s3cr3t", "_look": "1"})
    sent = {**HEADER, **hidden(page), **change, "_look": "1"}
    again = browser.post(ADD, sent)
    assert "Enter the secret." in again.content.decode()
    assert elsewhere.secrets == ["Bearer s3cr3t"]


def test_a_stored_secret_goes_to_no_other_server(elsewhere: Elsewhere) -> None:
    browser = browser_of(root())
    page = browser.post(ADD, {**HEADER, "secret": "s3cr3t", "_look": "1"})
    browser.post(ADD, {**HEADER, **hidden(page), "_save": "1"})
    server = UpstreamServer.objects.get()
    url = f"{LIST}{server.pk}/change/"
    moved = {**HEADER, "url": "https://evil.example/mcp"}
    assert "to another URL now" in browser.post(url, moved).content.decode()
    same = {**HEADER, "url": "https://mcp.example.com/other", "title": "Shop"}
    assert browser.post(url, same).status_code == 302
    server.refresh_from_db()
    assert server.title == "Shop" and server.url.endswith("/other")
    assert secret_of(UpstreamCredential.objects.get()) == "Bearer s3cr3t"


def test_a_server_that_does_not_answer_is_saved_only_on_demand(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.down = True
    browser = browser_of(root())
    page = browser.post(ADD, {**SENT, "_save": "1"})
    assert page.status_code == 400 and "Try again later." in page.content.decode()
    assert not UpstreamServer.objects.exists()
    saved = browser.post(ADD, {**SENT, **hidden(page), "_save": "1", "anyway": "1"})
    assert UpstreamServer.objects.get().primitives.count() == 0
    told = "shop is saved. It has not been contacted yet."
    assert messages_of(saved) == [told]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"header": "Host", "secret": "x"}, "cannot carry a credential"),
        ({"header": "Mcp-Session-Id", "secret": "x"}, "cannot carry a credential"),
        ({"header": "X-Key", "secret": "ä"}, "one line of printable ASCII"),
        ({"header": "X-Key", "secret": ""}, "Enter the secret."),
        ({"credential_mode": "client_credentials"}, "This credential needs it."),
        ({"url": "ftp://a.example/"}, "is not a URL"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_sent(
    elsewhere: Elsewhere, change: dict[str, str], error: str
) -> None:
    page = browser_of(root()).post(ADD, {**HEADER, **change, "_look": "1"})
    assert page.status_code == 400 and error in page.content.decode()
    assert elsewhere.secrets == []


TOKEN_FIELDS = {
    "token_url": "https://id.example/token",
    "client_id": "portico",
    "client_authentication": BASIC,
    "secret": "s3cr3t",
}


@pytest.mark.parametrize("missing", ["token_url", "client_id", "secret"])
def test_each_field_of_the_credential_is_needed(
    elsewhere: Elsewhere, missing: str
) -> None:
    mode = {"credential_mode": "client_credentials", "_look": "1"}
    sent = {**SENT, **mode, **TOKEN_FIELDS, missing: ""}
    page = browser_of(root()).post(ADD, sent)
    assert page.status_code == 400 and elsewhere.secrets == []
    assert list(page.context["form"].errors) == [missing]


def test_others_disable_servers_and_nothing_else(elsewhere: Elsewhere) -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    rita = account("rita", is_staff=True)
    names = ("view_upstreamserver", "add_upstreamserver", "change_upstreamserver")
    rita.user_permissions.set(
        Permission.objects.filter(codename__in=(*names, "change_primitive"))
    )
    browser = browser_of(rita)
    assert browser.post(ADD, {**SENT, "_look": "1"}).status_code == 403
    for action, enabled in (("disable", False), ("enable", False)):
        browser.post(LIST, {"action": action, "_selected_action": server.pk})
        server.refresh_from_db()
        assert server.enabled is enabled
    assert AuditEvent.objects.get(action="upstream.changed").actor == "rita"
    assert elsewhere.secrets == []


def test_the_list_shows_state_counts_and_calls(elsewhere: Elsewhere) -> None:
    server = UpstreamServer.objects.create(
        name="shop", url="https://a.example/", prefix="shop"
    )
    Primitive.objects.sync(elsewhere.offers, server, hold=True)
    for took in (1.0, 5.0, 9.0):
        AuditEvent.objects.create(
            action="tool.called",
            object="tool shop__sell",
            decision="allowed",
            outcome="ok",
            duration_ms=took,
        )
    browser = browser_of(root())
    page = browser.get(LIST).content.decode()
    for text in ("not contacted yet", "0 / 1 / 0", ">5.0<", ">3<"):
        assert text in page, text
    one = browser.get(f"{LIST}{server.pk}/change/").content.decode()
    assert "Discover now" in one and "shop__sell" in one


def test_discover_now_reports_what_changed(elsewhere: Elsewhere) -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    browser = browser_of(root())
    sent = {"action": "discover", "_selected_action": server.pk}
    page = browser.post(LIST, sent, follow=True).content.decode()
    assert "shop: 1 new, 0 changed, 0 gone." in page
    elsewhere.down = True
    page = browser.post(LIST, sent, follow=True).content.decode()
    assert "No answer. Try again later." in page and "failing" in page


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({}, "not contacted yet"),
        ({"checked_at": "now", "contacted_at": "now"}, "working"),
        ({"checked_at": "now", "error": "No answer."}, "failing"),
        (
            {"checked_at": "now", "contacted_at": "now", "error": "Too many."},
            "incomplete",
        ),
    ],
)
def test_the_state_is_one_of_a_few_words(columns: dict[str, Any], text: str) -> None:
    now = timezone.now()
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    times = {name: now if value == "now" else value for name, value in columns.items()}
    UpstreamStatus.objects.create(upstream=server, **times)
    assert figures.state_of(server).text == text
    server.credential_mode = "static_header"
    assert figures.state_of(server).text == "credential missing"
    server.enabled = False
    assert figures.state_of(server).text == "disabled"


def test_calls_and_their_median() -> None:
    assert figures.of_durations([3.0, None, 1.0, 2.0]) == figures.Figures(4, 2.0)
    assert figures.of_durations([]) == figures.Figures(0, None)


@pytest.mark.parametrize(
    ("via", "share"),
    [
        ("role User grants x; upstream acme: 12.5 ms; Portico: 1.0 ms", 12.5),
        ("role User grants x; upstream acme: 7 ms", 7.0),
        ("role User grants x", None),
        ("", None),
    ],
)
def test_the_servers_share_is_read_from_the_event(
    via: str, share: float | None
) -> None:
    assert figures.share_of(via) == share


@pytest.mark.parametrize(
    ("calls", "shown"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10,000+"), (10_001, "10,000+")],
)
def test_calls_are_counted_up_to_a_limit(calls: int, shown: str) -> None:
    assert figures.Figures(calls, None).shown == shown


def test_only_answered_calls_of_the_last_day_count() -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    Primitive.objects.create(kind="tool", name="sell", upstream=server)
    counted = {"object": "tool sell", "decision": "allowed", "outcome": "ok"}
    now = timezone.now()
    for change in (
        {},
        {"outcome": "error"},
        {"outcome": ""},
        {"decision": "denied"},
        {"object": "tool buy"},
        {"at": now - timedelta(hours=24, minutes=1)},
    ):
        AuditEvent.objects.create(**{"at": now, "action": "x", **counted, **change})
    assert figures.figures_of(server).calls == 2


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((1, 2, 4, 8), "Shop (shop): 1 new, 10 changed, 4 gone."),
        ((0, 0, 0, 1), "Shop (shop): 0 new, 1 changed, 0 gone."),
    ],
)
def test_a_discovery_is_reported_in_numbers(counts: tuple[int, ...], text: str) -> None:
    """What a server offers again has changed, too."""
    names = ("added", "changed", "vanished", "returned")
    server = UpstreamServer(name="shop", title="Shop")
    found = servers.found_text(server, dict(zip(names, counts, strict=True)))
    assert found == text.replace("Shop (shop)", str(server))


@pytest.mark.parametrize("spare", [0, -1])
def test_calls_are_found_by_names_that_fit_a_url(
    monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    assert servers.calls_query(server) == {}
    Primitive.objects.create(kind="tool", name="sell", upstream=server)
    Primitive.objects.create(kind="prompt", name="ask", upstream=server)
    Primitive.objects.create(kind="tool", name="other")
    monkeypatch.setattr(servers, "LONGEST_VALUE", len("tool sell") + spare)
    expected = {} if spare else {"object__in": "tool sell"}
    assert servers.calls_query(server) == expected
    server.prefix = "shop"
    assert servers.calls_query(server) == {"q": "tool shop__"}


def test_a_credential_is_saved_only_when_it_changes(elsewhere: Elsewhere) -> None:
    """Each version begins with nothing fetched."""
    browser = browser_of(root())
    page = browser.post(ADD, {**HEADER, "secret": "s3cr3t", "_look": "1"})
    browser.post(ADD, {**HEADER, **hidden(page), "_save": "1"})
    row = UpstreamCredential.objects.get()
    url = f"{LIST}{row.upstream_id}/change/"
    sent = {**HEADER, "title": "Shop", "client_authentication": BASIC}
    browser.post(url, sent)
    assert UpstreamCredential.objects.get().version == row.version
    browser.post(url, {**sent, "secret": "other"})
    after = UpstreamCredential.objects.get()
    assert after.version == row.version + 1 and secret_of(after) == "Bearer other"


def test_the_page_shows_the_server_and_what_it_offers(elsewhere: Elsewhere) -> None:
    server = UpstreamServer.objects.create(name="shop", url="https://a.example/")
    Primitive.objects.sync(elsewhere.offers, server, hold=True)
    at = datetime(2026, 5, 10, 12, tzinfo=UTC)
    told = {"server_name": "<Shop>", "server_version": "1.7", "protocol": "2025-11-25"}
    UpstreamStatus.objects.create(upstream=server, contacted_at=at, **told)
    AuditEvent.objects.create(
        action="tool.called",
        object="tool shop__sell",
        decision="allowed",
        outcome="ok",
        duration_ms=7.5,
        via="role User; upstream shop: 2.5 ms",
    )
    page = browser_of(root()).get(f"{LIST}{server.pk}/change/").content.decode()
    for text in (
        "<strong>1</strong> calls in 24 h",
        "<strong>7.5</strong> p50 (ms)",
        "<strong>2.5</strong> p50 of the server alone (ms)",
        "<strong>&lt;Shop&gt;</strong> 1.7 2025-11-25",
    ):
        assert text in page, text
    (contact,) = re.findall(r"<strong>([^<]*)</strong> last contact", page)
    assert "2026" in contact
    (row,) = re.findall(r"<tr><td><a [^>]*>shop__sell</a></td>.*?</tr>", page)
    assert "<td>tool</td>" in row and "held" in row


def test_the_list_shows_the_last_contact(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    at = datetime(2026, 5, 4, 10, 30, tzinfo=UTC)
    for name, times in (("known", {"contacted_at": at}), ("new", {})):
        row = UpstreamServer.objects.create(name=name, url=f"https://{name}.example/")
        if times:
            UpstreamStatus.objects.create(upstream=row, **times)
    page = browser_of(root()).get(LIST).content.decode()
    cells = re.findall(r'<td class="field-contact[^"]*">(.*?)</td>', page)
    assert ["2026" in cell for cell in cells] == [True, False], cells
