"""Statistics: hours aggregated once, the running hour added."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.admin_site import dashboard
from accounts.admin_site.charts import slot_label
from accounts.audit import statistics
from accounts.audit.statistics import (
    CHART_ACTIONS,
    SIGNED_IN,
    SPANS,
    Slot,
    Span,
    Statistics,
    Top,
    gather_statistics,
    hours_from,
    live_tokens,
    top_values,
)
from accounts.models import AuditEvent, AuditHour, IssuedToken, RevokedToken, User
from accounts.models.audit.rollups import (
    HOUR,
    SETTLING_TIME,
    STEPS,
    Facet,
    empty_counts,
    floor_hour,
)
from accounts.tokens.issue import issue_tokens
from tests.support.database_prompt import empty_audit
from tests.support.users import make_user, unguarded_users

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)


def event(ago: timedelta, action: str = "tool.called", **fields: Any) -> AuditEvent:
    allowed = not action.endswith("denied")
    found = {
        "object": "tool look",
        "actor": "alice",
        "client_id": "portico",
        "decision": "allowed" if allowed else "denied",
        "reason": "granted" if allowed else "role_lacks_scope",
        "duration_ms": 10.0,
        **fields,
    }
    return AuditEvent.objects.create(action=action, at=NOW - ago, **found)


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in the running hour, five hours and ten days ago; a sign-in.

    The call of this hour failed, and a list of tools is no call.
    """
    # On a busy machine the first visitor would leave hours to the next one.
    monkeypatch.setattr(statistics, "ROLL_UP_SECONDS", 60)
    empty_audit()
    for hours in (0, 5, 240):
        event(HOUR * hours, outcome="ok" if hours else "error")
        event(HOUR * hours, "tool.denied", actor="bob", object="tool rule")
    event(HOUR * 5, "message.allowed", object="tools/list", duration_ms=1000.0)
    event(HOUR * 5, SIGNED_IN, decision="", duration_ms=None, client_id="")


@pytest.mark.parametrize(("span", "calls"), [("24h", 2), ("7d", 2), ("30d", 3)])
def test_a_span_adds_up_its_events(history: None, span: str, calls: int) -> None:
    """The totals are the same before and after hours are aggregated."""
    for _again in range(2):
        found = gather_statistics(SPANS[span], NOW)
        assert (found.total("calls"), found.total(SIGNED_IN)) == (calls, 1)
        assert found.total("refusals") == calls and found.uncounted == 0
        assert (found.total("failed"), found.total("succeeded")) == (1, calls - 1)
        assert found.error_rate == 1 / calls
        assert len(found.slots) == SPANS[span].slots


def test_the_tops_name_users_and_tools(history: None) -> None:
    """Messages that name no primitive count for no tool."""
    tops = gather_statistics(SPANS["24h"], NOW).tops
    assert [(t.name, t.allowed, t.denied) for t in tops[Facet.OBJECT]] == [
        ("tool look", 2, 0),
        ("tool rule", 0, 2),
    ]
    assert [(t.name, t.total) for t in tops[Facet.ACTOR]] == [("alice", 2), ("bob", 2)]
    assert [(t.name, t.total) for t in tops[Facet.REASON]] == [("role_lacks_scope", 2)]


def test_durations_are_within_five_percent(history: None) -> None:
    found = gather_statistics(SPANS["24h"], NOW)
    half, most = found.percentile(0.5), found.percentile(0.95)
    assert half is not None and abs(half / 10 - 1) < 0.06
    assert most is not None and abs(most / 1000 - 1) < 0.06


def test_durations_are_those_of_allowed_calls_in_every_hour(db: None) -> None:
    columns = {"facet": Facet.DURATION, "value": "3", "allowed": 2, "denied": 7}
    AuditHour.objects.create(hour=NOW - HOUR * 5, **columns)
    current = empty_counts()
    current[Facet.DURATION]["allowed"]["3"] = 4
    current[Facet.DURATION]["denied"]["3"] = 8
    found = statistics.durations(AuditHour.objects.all(), [current, current])
    assert found == {3: 2 + 4 + 4}


def test_an_empty_log_has_figures(db: None) -> None:
    """A new installation shows zeros, not an error."""
    empty_audit()
    found = gather_statistics(SPANS["30d"], NOW)
    assert found.percentile(0.5) is None and found.total("calls") == 0
    assert found.error_rate is None


def test_an_hour_is_counted_once_and_old_hours_are_deleted(history: None) -> None:
    """Any process may count first; the newest hour is counted first."""
    hours = AuditHour.objects.all()
    first = hours.uncounted_hours(NOW)
    assert first == sorted(first, reverse=True) and first[0].hour == 11
    assert hours.roll_up(NOW, seconds=0.0) == len(first)
    assert hours.roll_up(NOW) == 0 == len(hours.uncounted_hours(NOW))
    before = AuditHour.objects.count()
    assert hours.roll_up(NOW) == 0 and AuditHour.objects.count() == before
    assert hours.purge(NOW + timedelta(days=25)) > 0


def dashboard_request(user: User, **query: str) -> Any:
    request = RequestFactory().get("/admin/", query)
    request.user = user
    return request


def dashboard_queries(user: User) -> int:
    """Number of queries of the whole page, with its charts."""
    with CaptureQueriesContext(connection) as queries:
        shown = dashboard.dashboard_context(dashboard_request(user, range="30d"))
    assert len(shown["charts"]) == 3 and shown["uncounted"] == 0
    return len(queries)


def fixed_clock(now: datetime) -> Any:
    name = timezone.get_current_timezone_name
    return SimpleNamespace(now=lambda: now, get_current_timezone_name=name)


@pytest.mark.parametrize(
    ("since_the_hour", "most"),
    [(timedelta(minutes=30), 54), (timedelta(seconds=1), 56)],
)
def test_the_dashboard_asks_a_bounded_number_of_queries(
    history: None,
    carol: User,
    monkeypatch: pytest.MonkeyPatch,
    since_the_hour: timedelta,
    most: int,
) -> None:
    """It does not depend on the size of the log; two hours are open just after one."""
    now = floor_hour(NOW) + since_the_hour
    monkeypatch.setattr(dashboard, "timezone", fixed_clock(now))
    monkeypatch.setattr(statistics, "ROLL_UP_SECONDS", 60.0)
    dashboard_queries(carol)
    before = dashboard_queries(carol)
    for number in range(50):
        event(HOUR * (number % 40), object=f"tool t{number}", actor=f"u{number}")
    assert dashboard_queries(carol) == before <= most


def test_without_the_audit_permission_there_are_no_figures(db: None) -> None:
    """Each part of the page checks its own permission."""
    judy = make_user("judy", admin=True)
    unguarded_users().filter(pk=judy.pk).update(is_superuser=False)
    judy.refresh_from_db()
    assert "cards" not in dashboard.dashboard_context(dashboard_request(judy))
    permission = Permission.objects.get(codename="view_auditevent")
    judy.user_permissions.add(permission)
    fresh = User.objects.get(pk=judy.pk)
    assert "cards" in dashboard.dashboard_context(
        dashboard_request(fresh, range="nonsense")
    )


@pytest.mark.parametrize(
    ("key", "slots", "hours", "last"),
    [("24h", 24, 1, 12), ("7d", 28, 6, 12), ("30d", 30, 24, 0)],
)
def test_the_last_slot_contains_now(
    key: str, slots: int, hours: int, last: int
) -> None:
    span = SPANS[key]
    bounds = span.boundaries(NOW)
    assert (span, len(bounds)) == (Span(key, slots, hours), slots + 1)
    assert bounds[-2] == datetime(2026, 5, 10, last, tzinfo=UTC)
    assert {b - a for a, b in pairwise(bounds)} == {HOUR * hours}


@pytest.mark.parametrize(
    "zone",
    ["Asia/Seoul", "America/Los_Angeles", "Europe/Berlin", "Pacific/Auckland", "UTC"]
    + ["Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham"],
)
@pytest.mark.parametrize("hour", [0, 6, 15, 16, 22, 23])
def test_days_are_those_of_the_reader(zone: str, hour: int) -> None:
    """They begin and end at midnight, also when the clock was changed."""
    now = datetime(2026, 4, 6, hour, 30, tzinfo=UTC)
    with timezone.override(ZoneInfo(zone)):
        bounds = SPANS["30d"].boundaries(now)
        local = [timezone.localtime(bound) for bound in bounds]
        today = timezone.localtime(now).date()
    assert {(moment.hour, moment.minute) for moment in local} == {(0, 0)}
    assert [moment.date() for moment in local] == [
        today + timedelta(days=n - 29) for n in range(31)
    ]


def test_a_day_of_23_hours_is_a_day() -> None:
    with timezone.override(ZoneInfo("Europe/Berlin")):
        bounds = SPANS["30d"].boundaries(datetime(2026, 4, 6, 12, tzinfo=UTC))
        lengths = [after - before for before, after in pairwise(bounds)]
        short = lengths.index(HOUR * 23)
        slot = Slot(bounds[short], bounds[short + 1])
        assert slot_label(slot) == "29 Mar"
    assert sorted(set(lengths)) == [HOUR * 23, HOUR * 24]


@pytest.mark.parametrize(
    "zone", ["Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
)
def test_hours_are_those_of_the_readers_clock(zone: str) -> None:
    now = datetime(2026, 5, 10, 12, 20, 7, tzinfo=UTC)
    with timezone.override(ZoneInfo(zone)):
        bounds = SPANS["24h"].boundaries(now)
        local = [timezone.localtime(bound) for bound in bounds]
        assert local[-2].hour == timezone.localtime(now).hour
    assert {(moment.minute, moment.second) for moment in local} == {(0, 0)}
    assert bounds[-2] <= now < bounds[-1] and len(bounds) == 25


def test_half_an_hour_of_summer_time_keeps_the_days() -> None:
    """Lord Howe Island goes from UTC+11 to UTC+10:30 on 5 April 2026."""
    with timezone.override(ZoneInfo("Australia/Lord_Howe")):
        bounds = SPANS["30d"].boundaries(datetime(2026, 4, 12, 12, tzinfo=UTC))
        lengths = [after - before for before, after in pairwise(bounds)]
        local = [timezone.localtime(bound) for bound in bounds]
    assert lengths.count(HOUR * 24) == 29 and sum(lengths, HOUR * 0) == HOUR * 720.5
    assert {(moment.hour, moment.minute) for moment in local} == {(0, 0)}


KATHMANDU = [
    (datetime(2026, 4, 10, 18, 14, tzinfo=UTC), None),
    (datetime(2026, 4, 10, 18, 15, tzinfo=UTC), "11 Apr"),
    (datetime(2026, 5, 7, 18, 5, tzinfo=UTC), "7 May"),
    (datetime(2026, 5, 7, 18, 14, tzinfo=UTC), "7 May"),
    (datetime(2026, 5, 7, 18, 15, tzinfo=UTC), "8 May"),
    (datetime(2026, 5, 7, 18, 59, tzinfo=UTC), "8 May"),
    (datetime(2026, 5, 9, 18, 14, tzinfo=UTC), "9 May"),
    (datetime(2026, 5, 9, 18, 15, tzinfo=UTC), "10 May"),
]
"""(time of a call, its day at UTC+5:45); None is before the 30 days."""


@pytest.mark.parametrize(("at", "day"), KATHMANDU, ids=str)
@pytest.mark.parametrize("hour", [9, 18], ids=["later", "within the hour"])
def test_an_hour_of_utc_is_split_at_midnight(
    db: None, at: datetime, day: str | None, hour: int
) -> None:
    """Finished hours and the current one; sign-ins like calls."""
    now = datetime(2026, 5, 9, 18, 59, 30, tzinfo=UTC)
    now = now if hour == 18 else datetime(2026, 5, 10, 9, tzinfo=UTC)
    empty_audit()
    event(NOW - at)
    AuditEvent.objects.create(action=SIGNED_IN, at=at)
    AuditHour.objects.all().roll_up(now)
    with timezone.override(ZoneInfo("Asia/Kathmandu")):
        slots = gather_statistics(SPANS["30d"], now).slots
        for name in ("calls", SIGNED_IN, "succeeded"):
            days = [slot_label(s) for s in slots for _n in range(s.counts[name])]
            assert days == ([day] if day else [])
        assert all(n >= 0 for slot in slots for n in slot.counts.values())


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "UTC"])
def test_each_call_is_in_one_hour_of_the_reader(db: None, zone: str) -> None:
    empty_audit()
    times = [NOW - timedelta(minutes=7 * n) for n in range(180)]
    for at in times:
        event(NOW - at)
    AuditHour.objects.all().roll_up(NOW)
    with timezone.override(ZoneInfo(zone)):
        slots = gather_statistics(SPANS["24h"], NOW).slots
    found = [slot.counts["calls"] for slot in slots]
    assert found == [sum(s.start <= at < s.end for at in times) for s in slots]
    assert sum(found) == 180


def test_events_are_in_the_readers_day(db: None) -> None:
    """23:30 and 00:30 in Seoul are two days, in UTC one."""
    empty_audit()
    for at in (
        datetime(2026, 5, 8, 14, 30, tzinfo=UTC),
        datetime(2026, 5, 8, 15, 30, tzinfo=UTC),
    ):
        event(NOW - at)
    for zone, expected in (("Asia/Seoul", ["8 May", "9 May"]), ("UTC", ["8 May"] * 2)):
        with timezone.override(ZoneInfo(zone)):
            slots = gather_statistics(SPANS["30d"], NOW).slots
            days = [slot_label(s) for s in slots for _n in range(s.counts["calls"])]
        assert days == expected


def test_just_after_the_hour_two_hours_are_open() -> None:
    """The last transactions of an hour may still be writing."""
    assert len(hours_from(floor_hour(NOW), NOW)) == 1
    early = datetime(2026, 5, 10, 12, 0, 1, tzinfo=UTC)
    first = floor_hour(early - SETTLING_TIME)
    assert hours_from(first, early) == [first, first + HOUR]


@pytest.mark.parametrize("now", [NOW, datetime(2026, 5, 10, 12, 0, 1, tzinfo=UTC)])
def test_every_action_of_the_charts_is_counted_once(db: None, now: datetime) -> None:
    """In finished hours, in the hour before and in the current one."""
    empty_audit()
    for at in (now, now - HOUR, now - HOUR * 5):
        for action in CHART_ACTIONS:
            for decision in ("", "denied"):
                AuditEvent.objects.create(action=action, at=at, decision=decision)
        about = {"actor": SIGNED_IN, "object": SIGNED_IN, "client_id": SIGNED_IN}
        AuditEvent.objects.create(action="other.action", at=at, **about)
    found = gather_statistics(SPANS["24h"], now)
    assert {name: found.total(name) for name in CHART_ACTIONS} == dict.fromkeys(
        CHART_ACTIONS, 6
    )
    assert [found.slots[n].counts[SIGNED_IN] for n in (-1, -2, -6)] == [2, 2, 2]
    assert "other.action" not in found.slots[-6].counts


def test_an_open_hour_is_not_counted_twice(db: None) -> None:
    """It may have a row if the clock was ahead for a while."""
    empty_audit()
    event(timedelta(0))
    fields = {"facet": Facet.MESSAGES, "allowed": 5, "denied": 5}
    AuditHour.objects.create(hour=floor_hour(NOW), **fields)
    fields["facet"] = Facet.CALLS
    AuditHour.objects.create(hour=floor_hour(NOW), **fields)
    assert gather_statistics(SPANS["24h"], NOW).total("calls") == 1


def test_events_before_the_span_do_not_count(db: None) -> None:
    empty_audit()
    start = SPANS["24h"].boundaries(NOW)[0]
    for at in (start - timedelta(seconds=1), start):
        event(NOW - at)
    found = gather_statistics(SPANS["24h"], NOW)
    assert found.total("calls") == 1 and found.slots[0].counts["calls"] == 1
    assert found.tops[Facet.ACTOR] == [Top("alice", 1, 0)]


def test_the_tops_are_short(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (statistics.TOP_LENGTH, statistics.TOP_CANDIDATES) == (8, 200)
    empty_audit()
    for number in range(10):
        for _call in range(number + 1):
            event(timedelta(0), object=f"tool {number}")
    found = gather_statistics(SPANS["24h"], NOW).tops[Facet.OBJECT]
    assert [top.name for top in found] == [f"tool {n}" for n in range(9, 1, -1)]
    assert found[0].total == 10


def test_past_and_current_hours_are_added_before_the_ranking(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "TOP_CANDIDATES", 2)
    empty_audit()
    for name, allowed in (("a", 3), ("b", 2), ("c", 1)):
        AuditHour.objects.create(
            hour=NOW - HOUR * 5,
            facet=Facet.ACTOR,
            value=name,
            allowed=allowed,
            denied=0,
        )
    current = empty_counts()
    current[Facet.ACTOR]["denied"]["b"] = 2
    found = top_values(Facet.ACTOR, AuditHour.objects.all(), [current, current])
    assert found == [Top("b", 2, 4), Top("a", 3, 0)]


@pytest.mark.parametrize(
    ("share", "bucket"), [(0.5, 0), (0.9, 0), (0.91, 40), (0.95, 40), (1.0, 40)]
)
def test_a_percentile_is_the_middle_of_its_bucket(share: float, bucket: int) -> None:
    found = Statistics(SPANS["24h"], [], 0, 0, {}, Counter({40: 10, 0: 90}))
    middle = {0: math.exp(0.5 / STEPS), 40: math.exp(40.5 / STEPS)}
    assert found.percentile(share) == middle[bucket]


def test_only_live_tokens_are_counted(alice: User) -> None:
    assert live_tokens(NOW) == 0
    one, two, three = (issue_tokens(alice, issued_via="command").row for _ in range(3))
    rows = IssuedToken.objects.all()
    rows.update(expires_at=NOW + timedelta(seconds=1))
    rows.filter(family=one.family).update(expires_at=NOW)
    assert live_tokens(NOW) == 4
    for row, until in ((one, NOW), (two, NOW + timedelta(seconds=1))):
        RevokedToken.objects.create(jti=row.jti, until=until)
    assert live_tokens(NOW) == 3 and three


def test_revocations_of_unknown_tokens_are_not_subtracted(alice: User) -> None:
    """Such as those of an expired token, or of one that is in another backup."""
    later = NOW + timedelta(days=1)
    for number in range(3):
        RevokedToken.objects.create(jti=f"unknown-{number}", until=later)
    assert live_tokens(NOW) == 0
    row = issue_tokens(alice, issued_via="command", refresh=False).row
    IssuedToken.objects.filter(pk=row.pk).update(expires_at=NOW)
    RevokedToken.objects.create(jti=row.jti, until=later)
    assert live_tokens(NOW) == 0
    IssuedToken.objects.filter(pk=row.pk).update(expires_at=later)
    assert live_tokens(NOW) == 0
    RevokedToken.objects.filter(jti=row.jti).delete()
    assert live_tokens(NOW) == 1


def test_live_tokens_are_counted_up_to_a_limit(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more says that there are more."""
    monkeypatch.setattr(statistics, "MOST_LIVE", 2)
    for number in range(1, 5):
        issue_tokens(alice, issued_via="command", refresh=False)
        IssuedToken.objects.update(expires_at=NOW + timedelta(days=1))
        assert live_tokens(NOW) == min(number, 3)
