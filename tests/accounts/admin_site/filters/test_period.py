"""Periods of a list: presets, dates with and without a time, and mistakes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.options import IncorrectLookupParameters
from django.utils import timezone

from accounts.admin_site.filters.period import PeriodFilter, end_of_period
from accounts.models import AuditEvent
from tests.support.accounts import stop_clock
from tests.support.admin_browser import AdminBrowser, list_url, staff_member
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def uncollected(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Period(PeriodFilter):
    ends = ("at__gte", "at__lt")


def period(**values: str) -> Any:
    params = {name: [value] for name, value in values.items()}
    return Period(None, params, AuditEvent, None)


@pytest.fixture
def root() -> AdminBrowser:
    return AdminBrowser(staff_member("root", superuser=True))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch, NOW)


@pytest.mark.parametrize(
    ("name", "values", "moment"),
    [
        ("at__gte", {"at__gte": "2026-05-10"}, "2026-05-10T00:00:00"),
        ("at__lt", {"at__lt": "2026-05-10"}, "2026-05-10T23:59:59.999999"),
        ("at__lte", {"at__lte": "2026-05-10"}, "2026-05-10T23:59:59.999999"),
        (
            "at__gte",
            {"at__gte": "2026-05-10", "at__gte_time": "14:30"},
            "2026-05-10T14:30:00",
        ),
        ("at__lt", {"at__lt": "2026-05-10 08:15"}, "2026-05-10T08:15:00"),
        ("at__gte", {"at__gte": "45m"}, "2026-05-10T11:45:00"),
        ("at__gte", {"at__gte": " 3d "}, "2026-05-07T12:30:00"),
    ],
)
def test_an_end_is_a_date_a_time_or_a_duration(
    name: str, values: dict[str, str], moment: str
) -> None:
    expected = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert end_of_period(values, name) == expected
    assert end_of_period({}, name) is None


def test_dates_are_those_of_the_reader() -> None:
    with timezone.override(ZoneInfo("Asia/Seoul")):
        start = end_of_period({"at__gte": "2026-05-10"}, "at__gte")
    assert start == datetime(2026, 5, 9, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "last week",
        "10 May 2026",
        "2026-13-01",
        "2026-02-30",
        "1 hour",
        "0h",
        "99999999d",
        "0001-01-01",
        "9999-12-31",
        "12:00",
        "\u00b2h",
        "<b>",
    ],
)
def test_what_is_no_time_is_an_error_at_its_input(text: str) -> None:
    """Nothing is shown instead of everything, and the text stays in its input."""
    AuditEvent.objects.create(action="x", at=NOW)
    one = period(at__gte=text)
    assert not one.queryset(SimpleNamespace(), AuditEvent.objects.all()).exists()
    assert text in one.errors["at__gte"] and "2026-12-31" in one.errors["at__gte"]
    (name, kind, _label, value), _time = one.parts(
        "at__gte", dict.fromkeys(["at__gte", "at__gte_time"])
    )
    written = "date" if text in ("0001-01-01", "9999-12-31") else "text"
    assert (name, kind, value) == ("at__gte", written, text)
    with pytest.raises(IncorrectLookupParameters, match="is not a date"):
        exporting: Any = SimpleNamespace(exporting=True)
        period(at__gte=text).queryset(exporting, AuditEvent.objects.all())


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31"])
def test_a_year_that_overflows_is_an_error(text: str) -> None:
    one = period(at__lt=text)
    assert one.period() == {} and text in one.errors["at__lt"]


def test_a_time_needs_a_date() -> None:
    one = period(at__lt_time="14:30")
    assert not one.period() and "14:30" in one.errors["at__lt"]


def test_the_end_is_not_before_the_start() -> None:
    one = period(at__gte="2026-05-02", at__lt="2026-05-01")
    one.period()
    assert one.errors == {"at__lt": "The end is before the start."}
    assert period(at__gte="2026-05-02", at__lt="2026-05-02").period()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("accounts_auditevent", "at__gte=next+tuesday"),
        ("accounts_auditevent", "at__lt=28.+Mai&actor=root"),
        ("accounts_issuedtoken", "issued_at__gte=a+month+ago"),
        ("accounts_issuedtoken", "issued_at__lte=2026-31-12"),
    ],
)
def test_each_list_with_a_period_shows_the_error(
    root: AdminBrowser, url: str, shown: str
) -> None:
    name = url.replace("accounts_", "")
    page = root.open(f"/admin/accounts/{name}/?{shown}").page
    assert page.status_code == 200 and str(page.url).endswith(shown)
    assert "is not a date or time" in page.text and 'aria-invalid="true"' in page.text
    assert "No rows are shown until you correct it." in page.text
    assert '<tr><td class="action-checkbox">' not in page.text


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("", 4), ("1h", 1), ("24h", 2), ("7d", 3)],
)
def test_presets_are_links(root: AdminBrowser, preset: str, expected: int) -> None:
    before = AuditEvent.objects.count()
    for ago in (HOUR / 2, HOUR * 5, DAY * 3, DAY * 20):
        AuditEvent.objects.create(action="odd.action", at=NOW - ago)
    query = f"action=odd.action&at__gte={preset}".removesuffix("&at__gte=")
    text = root.open(f"{list_url(AuditEvent)}?{query}").page.text
    assert before >= 0 and text.count('<time class="moment"') == expected
    for key in ("1h", "24h", "7d"):
        assert f"at__gte={key}" in text
    assert ('aria-current="true">Any time' in text) is (preset == "")


def test_a_moment_of_a_link_is_shown_as_date_and_time() -> None:
    """A chart links to moments; both inputs show them in the reader's zone."""
    one = period(at__gte="2026-05-09T23:15:00+00:00")
    labels = {name: "" for name, *_rest in one.inputs}
    with timezone.override(ZoneInfo("Asia/Seoul")):
        assert one.parts("at__gte", labels) == [
            ("at__gte", "date", "", "2026-05-10"),
            ("at__gte_time", "time", "", "08:15"),
        ]
    preset = period(at__gte="24h").parts("at__gte", labels)
    assert [value for *_rest, value in preset] == ["", ""]


@pytest.mark.parametrize(
    ("query", "summary", "chosen"),
    [
        ("", "", "Any time"),
        ("at__gte=1h", "1 hour", "1 hour"),
        ("at__gte=24h", "24 hours", "24 hours"),
        ("at__gte=7d", "7 days", "7 days"),
        ("at__gte=2026-05-01", "2026-05-01 – ", ""),
        ("at__lt=2026-05-02", " – 2026-05-02", ""),
        (
            "at__gte=2026-05-01&at__gte_time=08:30&at__lt=2026-05-02",
            "2026-05-01 08:30 – 2026-05-02",
            "",
        ),
        ("at__gte=3d", "2026-05-07 12:30 – ", ""),
    ],
)
def test_the_closed_filter_shows_the_period(
    root: AdminBrowser, query: str, summary: str, chosen: str
) -> None:
    answer = root.http.client.get(f"{list_url(AuditEvent)}?{query}")  # type: ignore[attr-defined]
    found: list[Any] = answer.context["cl"].filter_specs
    (one,) = [spec for spec in found if isinstance(spec, PeriodFilter)]
    (shown,) = one.choices(answer.context["cl"])
    assert shown["summary"] == summary
    presets = [str(label) for label, _url, on in shown["presets"] if on]
    assert presets == ([chosen] if chosen else [])
    assert shown["custom"] == (not chosen)
    text = answer.content.decode()
    assert (f"<b>{summary}</b>" in text) == bool(summary)


def test_each_input_has_its_label(root: AdminBrowser) -> None:
    text = root.open(list_url(AuditEvent)).page.text
    inputs = re.findall(r'<label>([^<]*) <input type="(\w+)" name="(at__\w+)"', text)
    assert inputs == [
        ("From", "date", "at__gte"),
        ("From, time", "time", "at__gte_time"),
        ("To", "date", "at__lt"),
        ("To, time", "time", "at__lt_time"),
    ]
