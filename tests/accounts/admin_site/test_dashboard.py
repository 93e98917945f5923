"""The dashboard: figures for those who may read the audit, with links to it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import RequestFactory

from accounts.admin_site import dashboard
from accounts.admin_site.charts import percent
from accounts.admin_site.notices import Notice
from accounts.audit.reasons import REASONS
from accounts.audit.statistics import (
    ISSUED,
    REVOKED,
    SIGN_IN_FAILED,
    SIGNED_IN,
    SPANS,
    Slot,
    Statistics,
    Top,
)
from accounts.models import OAuthClient
from accounts.models.audit.rollups import Facet

pytestmark = pytest.mark.once
START = datetime(2026, 5, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PERIOD = {"at__gte": "2026-05-10T12:00:00+00:00", "at__lt": "2026-05-10T14:00:00+00:00"}
DENIED, CALLED = {"decision__exact": "denied"}, {"action": "tool.called"}
OK, FAILED = {**CALLED, "outcome": "ok"}, {**CALLED, "outcome": "error"}


def statistics(**fields: Any) -> Statistics:
    counts = {"calls": 3, "failed": 1, "succeeded": 2, "refusals": 2}
    counts |= {SIGNED_IN: 5, ISSUED: 7}
    slots = [
        Slot(START + HOUR * n, START + HOUR * (n + 1), Counter(counts)) for n in (0, 1)
    ]
    tops = {
        facet: [Top(f"<{facet}>", 3, 1), Top("", 0, 2)]
        for facet, _t, _c in dashboard.LISTS
    }
    known: dict[str, Any] = {
        "span": SPANS["7d"],
        "slots": slots,
        "uncounted": 4,
        "live_tokens": 9,
        "tops": tops,
        "durations": Counter({0: 1}),
    }
    return Statistics(**{**known, **fields})


def query_of(url: str) -> dict[str, str]:
    """The filters of a link to the audit log."""
    parts = urlsplit(url)
    assert parts.path == "/admin/accounts/auditevent/"
    return {name: value for name, (value,) in parse_qs(parts.query).items()}


class Person:
    """A user with some permissions."""

    def __init__(self, *permissions: str) -> None:
        self.permissions = permissions

    def has_perm(self, name: str) -> bool:
        return name in self.permissions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The spans whose statistics were gathered."""
    spans: list[Any] = []

    def gather(span: Any, _now: Any) -> Statistics:
        spans.append(span.key)
        return statistics(span=span)

    monkeypatch.setattr(dashboard, "gather_statistics", gather)
    monkeypatch.setattr(dashboard, "notices", lambda request: [Notice("x")])
    monkeypatch.setattr(dashboard, "checklist", lambda request: [])
    return spans


def context(*permissions: str, **query: str) -> dict[str, Any]:
    request: Any = RequestFactory().get("/admin/", query)
    request.user = Person(*permissions)
    return dashboard.dashboard_context(request)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "span"),
    [
        ({}, "24h"),
        ({"range": "x"}, "24h"),
        ({"range": "7d"}, "7d"),
        ({"range": "30d"}, "30d"),
    ],
)
def test_the_range_chooses_the_span(
    asked: list[Any], query: dict[str, str], span: str
) -> None:
    found = context("accounts.view_auditevent", **query)
    assert asked == [span] and found["notices"] == [Notice("x")]
    assert found["spans"] == [(key, key == span) for key in ("24h", "7d", "30d")]
    assert found["uncounted"] == 4 and len(found["charts"]) == 3


def test_without_the_permission_nothing_is_counted(asked: list[Any]) -> None:
    shown = {"notices": [Notice("x")], "steps": []}
    assert context("accounts.view_user") == shown and asked == []


def test_every_card_has_its_number_and_its_link() -> None:
    found = dashboard.cards(statistics())
    assert [(str(label), value) for label, value, _url in found] == [
        ("tool calls", "6"),
        ("error rate", "33.3 %"),
        ("denied", "4"),
        ("active tokens", "9"),
        ("sign-ins", "10"),
        ("median response time (p50)", "1.1 ms"),
        ("95th percentile (p95)", "1.1 ms"),
    ]
    urls = [url for *_rest, url in found]
    assert query_of(urls[0]) == {**CALLED, **PERIOD}
    assert query_of(urls[1]) == {**FAILED, **PERIOD}
    assert query_of(urls[2]) == {**DENIED, **PERIOD}
    assert urls[3] == "/admin/accounts/issuedtoken/?state=active"
    assert query_of(urls[4]) == {"action": SIGNED_IN, **PERIOD}
    assert urls[5:] == ["", ""]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "-"),
        (0.0, "0.0 %"),
        (0.0004, "< 0.1 %"),
        (0.0256, "2.6 %"),
        (1.0, "100.0 %"),
    ],
)
def test_few_errors_are_not_rounded_to_none(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("share", "text"), [(0.5, "p50"), (0.95, "p95")])
def test_percentiles_are_those_of_their_names(share: float, text: str) -> None:
    durations = Counter({0: 90, 100: 10})
    found = {
        str(label): value
        for label, value, _u in dashboard.cards(statistics(durations=durations))
    }
    expected = dashboard.milliseconds(statistics(durations=durations).percentile(share))
    assert [value for label, value in found.items() if text in label] == [expected]
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.04, "0.0 ms"),
        (9.94, "9.9 ms"),
        (10.0, "10 ms"),
        (1234.5, "1234 ms"),
    ],
)
def test_short_times_have_a_decimal(value: float | None, text: str) -> None:
    assert dashboard.milliseconds(value) == text


@pytest.mark.django_db
def test_clients_are_shown_by_name() -> None:
    client = {"client_id": f"<{Facet.CLIENT}>", "name": "Editor"}
    OAuthClient.objects.create(client_type="public", **client)
    titles = {str(title): rows for title, rows in dashboard.lists(statistics())}
    (first, second) = titles["Top clients"]
    assert (first["name"], second["name"]) == ("Editor", "-")
    assert query_of(first["url"])["client_id"] == client["client_id"]
    assert titles["Top users"][0]["name"] == f"<{Facet.ACTOR}>"


@pytest.mark.django_db
def test_every_list_links_to_its_events() -> None:
    found = dashboard.lists(statistics())
    assert [str(title) for title, _rows in found] == [
        "Top tools, resources and prompts",
        "Top users",
        "Top clients",
        "Reasons for denial",
    ]
    columns = ("object", "actor", "client_id", "reason")
    facets = (Facet.OBJECT, Facet.ACTOR, Facet.CLIENT, Facet.REASON)
    for (_title, rows), column, facet in zip(found, columns, facets, strict=True):
        extra = DENIED if column == "reason" else {}
        assert query_of(rows[0]["url"]) == {column: f"<{facet}>", **extra, **PERIOD}


@pytest.mark.django_db
def test_a_row_has_widths_relative_to_the_largest() -> None:
    first, second = dashboard.lists(statistics())[1][1]
    numbers = ("total", "denied", "allowed_width", "denied_width", "total_width")
    assert [first[name] for name in numbers] == ["4", "1", 75, 25, 100]
    assert [second[name] for name in numbers] == ["2", "2", 0, 50, 50]
    assert second["name"] == "-" and first["name"] == f"<{Facet.ACTOR}>"


def test_charts_draw_these_series() -> None:
    found = dashboard.charts(statistics())
    assert [(one.slug, [series.key for series in one.series]) for one in found] == [
        ("messages", ["succeeded", "failed", "refusals"]),
        ("tokens", [ISSUED, REVOKED]),
        ("sign-ins", [SIGNED_IN, SIGN_IN_FAILED]),
    ]
    queries = [series.query for one in found for series in one.series]
    actions = [
        {"action": name} for name in (ISSUED, REVOKED, SIGNED_IN, SIGN_IN_FAILED)
    ]
    assert queries == [OK, FAILED, DENIED, *actions]
    looks = [series.look for one in found for series in one.series]
    assert looks == ["", "warn", "bad", "", "quiet", "", "bad"]


def test_a_bar_links_to_its_slot() -> None:
    bar = dashboard.charts(statistics())[0].bars[1]
    slot = {"at__gte": "2026-05-10T13:00:00+00:00", "at__lt": PERIOD["at__lt"]}
    assert query_of(bar.url) == slot
    assert [query_of(url) for _n, url in bar.cells] == [
        {**OK, **slot},
        {**FAILED, **slot},
        {**DENIED, **slot},
    ]


@pytest.mark.parametrize(
    ("tokens", "shown"), [(0, "0"), (10_000, "10,000"), (10_001, "10,000+")]
)
def test_active_tokens_are_shown_up_to_a_limit(tokens: int, shown: str) -> None:
    assert dashboard.at_most(tokens) == shown


@pytest.mark.django_db
def test_reasons_and_clients_have_names() -> None:
    """A client of the past, and a reason of a plug-in, have the text of the event."""
    OAuthClient.objects.create(client_id="abc", name="Editor", client_type="public")
    tops: dict[Any, list[Top]] = {
        facet: [] for facet, _title, _column in dashboard.LISTS
    }
    tops[Facet.REASON] = [Top(name, 1, 1) for name in (*REASONS, "odd")]
    tops[Facet.CLIENT] = [Top(name, 1, 1) for name in ("abc", "gone")]
    found = dashboard.lists(statistics(tops=tops))
    *_others, clients, reasons = [[row["name"] for row in rows] for _t, rows in found]
    assert clients == ["Editor", "gone"]
    assert reasons == [*REASONS.values(), "odd"]
