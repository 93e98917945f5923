"""Hourly counts: what counts where, and which hours are finished."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import AuditEvent, AuditHour
from accounts.models.audit import rollups
from accounts.models.audit.rollups import (
    CAPPED_FACETS,
    HOUR,
    MAX_VALUES,
    RETENTION,
    SETTLING_TIME,
    Facet,
    count_events,
    empty_counts,
    floor_hour,
    limit_values,
)
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture(autouse=True)
def empty() -> None:
    empty_audit()


def event(at: datetime, action: str = "tool.called", **fields: Any) -> AuditEvent:
    given = {
        "object": "tool look",
        "actor": "ann",
        "client_id": "app",
        "decision": "allowed",
        "duration_ms": 10.0,
        **fields,
    }
    return AuditEvent.objects.create(action=action, at=at, **given)


def denied(at: datetime, action: str = "tool.denied", **fields: Any) -> AuditEvent:
    return event(at, action, decision="denied", **{"reason": "no role", **fields})


def counts(start: datetime = NOON) -> dict[str, dict[str, Counter[str]]]:
    """Facet -> verdict -> counts, without what is empty."""
    found = count_events(start, start + HOUR)
    assert set(found) == set(Facet)
    return {
        facet: {verdict: number for verdict, number in verdicts.items() if number}
        for facet, verdicts in found.items()
        if any(verdicts.values())
    }


def test_an_allowed_call_counts_once_in_each_facet() -> None:
    event(NOON), event(NOON)
    one = {"allowed": Counter({"ann": 2})}
    assert counts() == {
        "messages": {"allowed": Counter({"": 2})},
        "calls": {"allowed": Counter({"": 2})},
        "action": {"allowed": Counter({"tool.called": 2})},
        "object": {"allowed": Counter({"tool look": 2})},
        "actor": one,
        "client": {"allowed": Counter({"app": 2})},
        "duration": {"allowed": Counter({"23": 2})},
    }


def test_a_refused_call_counts_with_its_reason_and_without_its_duration() -> None:
    denied(NOON)
    assert counts() == {
        "messages": {"denied": Counter({"": 1})},
        "calls": {"denied": Counter({"": 1})},
        "action": {"denied": Counter({"tool.denied": 1})},
        "object": {"denied": Counter({"tool look": 1})},
        "actor": {"denied": Counter({"ann": 1})},
        "client": {"denied": Counter({"app": 1})},
        "reason": {"denied": Counter({"no role": 1})},
    }


def test_an_event_without_a_message_counts_by_action_only() -> None:
    event(NOON, "user.signed_in", decision="", duration_ms=None)
    denied(NOON, "user.sign_in_failed", duration_ms=None)
    assert counts() == {
        "action": {
            "allowed": Counter({"user.signed_in": 1}),
            "denied": Counter({"user.sign_in_failed": 1}),
        }
    }


@pytest.mark.parametrize("action", ["message.allowed", "request.refused"])
def test_messages_without_a_target_count_for_no_target(action: str) -> None:
    event(NOON, action, object="tools/list")
    found = counts()
    assert Facet.OBJECT not in found
    assert found[Facet.MESSAGES]["allowed"] == {"": 1}


@pytest.mark.parametrize(
    ("action", "calls"),
    [
        ("tool.called", 1),
        ("message.allowed", None),
        ("resource.read", None),
        ("prompt.fetched", None),
    ],
)
def test_only_tool_calls_are_calls(action: str, calls: int | None) -> None:
    """Neither lists nor `initialize` make a user or a client busy."""
    event(NOON, action)
    found = counts()
    for facet, name in ((Facet.CALLS, ""), (Facet.ACTOR, "ann"), (Facet.CLIENT, "app")):
        allowed = found[facet]["allowed"] if facet in found else {}
        assert allowed.get(name) == calls


@pytest.mark.parametrize(
    ("outcome", "errors"), [("error", 1), ("ok", 0), ("cancelled", 0), ("", 0)]
)
def test_failed_calls_are_counted(outcome: str, errors: int) -> None:
    event(NOON, outcome=outcome)
    event(NOON, "resource.read", outcome="error")
    found = counts()
    assert found[Facet.CALLS]["allowed"] == {"": 1}
    assert found.get(Facet.ERRORS, {}).get("allowed", Counter())[""] == errors


def test_denied_messages_count_for_their_user() -> None:
    denied(NOON, "request.refused")
    assert counts()[Facet.ACTOR] == {"denied": Counter({"ann": 1})}


def test_unnamed_users_and_clients_are_not_counted() -> None:
    event(NOON, actor="", client_id="")
    assert {Facet.ACTOR, Facet.CLIENT}.isdisjoint(counts())


def test_only_allowed_decisions_have_durations() -> None:
    event(NOON, decision="")
    assert Facet.DURATION not in counts()


@pytest.mark.parametrize(
    ("milliseconds", "step"),
    [(0.0, "-47"), (0.02, "-40"), (1.0, "0"), (1.1, "0"), (1.2, "1"), (1000.0, "69")],
)
def test_durations_are_counted_in_logarithmic_steps(
    milliseconds: float, step: str
) -> None:
    event(NOON, duration_ms=milliseconds)
    assert counts()[Facet.DURATION]["allowed"] == {step: 1}


def test_an_hour_includes_its_start_and_excludes_its_end() -> None:
    for at in (NOON - TICK, NOON, NOON + HOUR - TICK, NOON + HOUR):
        event(at)
    assert counts()[Facet.MESSAGES]["allowed"] == {"": 2}
    assert counts()[Facet.DURATION]["allowed"] == {"23": 2}


@pytest.mark.parametrize("facet", Facet)
def test_frequent_values_are_stored_and_rare_ones_cut(facet: Facet) -> None:
    names = [str(n) for n in range(MAX_VALUES + 5)]
    found = {
        "allowed": Counter(dict.fromkeys(names, 2)),
        "denied": Counter({"0": 1, "often denied": 9}),
    }
    stored = limit_values(facet, found)
    if facet == Facet.MESSAGES:
        assert stored == [""]
    elif facet in CAPPED_FACETS:
        assert stored[:2] == ["often denied", "0"] and len(stored) == MAX_VALUES == 100
    else:
        assert set(stored) == {*names, "often denied"}


def test_values_that_anybody_can_invent_are_limited() -> None:
    assert {str(facet) for facet in CAPPED_FACETS} == {"object", "actor", "client"}


def test_an_hour_begins_at_minute_zero() -> None:
    assert floor_hour(NOON + HOUR - TICK) == floor_hour(NOON) == NOON


def hours() -> list[datetime]:
    rows = AuditHour.objects.filter(facet=Facet.MESSAGES)
    return sorted(rows.values_list("hour", flat=True))


def uncounted(now: datetime) -> list[int]:
    """The uncounted hours, as hours before noon."""
    found = AuditHour.objects.all().uncounted_hours(now)
    return [(NOON - hour) // HOUR for hour in found]


def test_an_hour_is_finished_after_its_settling_time() -> None:
    event(NOON - 3 * HOUR + TICK)
    assert timedelta(minutes=2) == SETTLING_TIME
    assert uncounted(NOON + SETTLING_TIME - TICK) == [2, 3]
    assert uncounted(NOON + SETTLING_TIME) == [1, 2, 3]


def test_without_events_no_hour_is_counted() -> None:
    assert uncounted(NOON) == [] and AuditHour.objects.all().roll_up(NOON) == 0


def test_counted_hours_are_left_out() -> None:
    event(NOON - 3 * HOUR)
    AuditHour.objects.create(
        hour=NOON - 2 * HOUR, facet="messages", allowed=0, denied=0
    )
    AuditHour.objects.create(hour=NOON - HOUR, facet="action", allowed=0, denied=0)
    assert uncounted(NOON + HOUR - TICK) == [1, 3]


def test_hours_before_every_page_are_not_counted() -> None:
    event(NOON - 2 * RETENTION)
    assert timedelta(days=31) == RETENTION
    found = uncounted(NOON + SETTLING_TIME)
    assert found == list(range(1, 31 * 24 + 1))


def test_finished_hours_are_stored_with_every_facet() -> None:
    event(NOON - HOUR), denied(NOON - HOUR)
    assert AuditHour.objects.all().roll_up(NOON + SETTLING_TIME) == 0
    rows = AuditHour.objects.values_list("facet", "value", "allowed", "denied")
    assert set(rows) == {
        ("messages", "", 1, 1),
        ("calls", "", 1, 1),
        ("action", "tool.called", 1, 0),
        ("action", "tool.denied", 0, 1),
        ("object", "tool look", 1, 1),
        ("actor", "ann", 1, 1),
        ("client", "app", 1, 1),
        ("reason", "no role", 0, 1),
        ("duration", "23", 1, 0),
    }
    assert set(AuditHour.objects.values_list("hour", flat=True)) == {NOON - HOUR}


@pytest.mark.parametrize("ago", [1, 4, 5, 9])
def test_every_hour_is_counted_in_small_transactions(
    monkeypatch: pytest.MonkeyPatch, ago: int
) -> None:
    """A page must not delay the writers of events."""
    for n in range(1, ago + 1):
        event(NOON - n * HOUR)
    sizes: list[int] = []
    honest = rollups.AuditHourQuerySet.bulk_create

    def bulk_create(self: Any, rows: Any, **options: Any) -> Any:
        sizes.append(len({row.hour for row in rows}))
        return honest(self, rows, **options)

    monkeypatch.setattr(rollups.AuditHourQuerySet, "bulk_create", bulk_create)
    assert AuditHour.objects.all().roll_up(NOON + SETTLING_TIME) == 0
    assert hours() == [NOON - n * HOUR for n in range(ago, 0, -1)]
    assert max(sizes) <= 4 and sum(sizes) == ago
    assert uncounted(NOON + SETTLING_TIME) == []


def test_empty_hours_are_marked_as_counted() -> None:
    event(NOON - 30 * HOUR), event(NOON - 20 * HOUR)
    assert AuditHour.objects.all().roll_up(NOON + SETTLING_TIME) == 0
    assert len(hours()) == 30
    with_events = AuditHour.objects.filter(facet=Facet.MESSAGES, allowed=1)
    found = [(NOON - row.hour) // HOUR for row in with_events]
    assert sorted(found) == [20, 30]
    empty_rows = AuditHour.objects.filter(facet=Facet.MESSAGES, allowed=0, denied=0)
    assert empty_rows.count() == 28


def test_an_event_of_the_running_hour_does_not_hide_empty_hours(
    django_assert_max_num_queries: Any,
) -> None:
    event(NOON - 9 * HOUR), event(NOON + HOUR)
    with django_assert_max_num_queries(14):
        AuditHour.objects.all().roll_up(NOON + SETTLING_TIME)
    assert len(hours()) == 9


def test_a_page_counts_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(1, 10):
        event(NOON - n * HOUR)
    clock = iter([0.0, 0.1, 0.3, 0.3, 0.3, 0.3])
    monkeypatch.setattr(rollups, "perf_counter", lambda: next(clock))
    assert AuditHour.objects.all().roll_up(NOON + SETTLING_TIME, 0.3) == 5
    assert hours() == [NOON - n * HOUR for n in (4, 3, 2, 1)]


def test_another_process_may_count_the_same_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event(NOON - HOUR)
    waiting = AuditHour.objects.all().uncounted_hours(NOON + SETTLING_TIME)
    AuditHour.objects.all().roll_up(NOON + SETTLING_TIME)
    monkeypatch.setattr(
        rollups.AuditHourQuerySet, "uncounted_hours", lambda *given: waiting
    )
    before = list(AuditHour.objects.order_by("pk").values())
    assert AuditHour.objects.all().roll_up(NOON + SETTLING_TIME) == 0
    assert list(AuditHour.objects.order_by("pk").values()) == before


def test_totals_add_hours_and_sort_by_frequency() -> None:
    for n, value, allowed, refused in (
        (1, "a", 1, 1),
        (2, "a", 1, 0),
        (1, "b", 0, 4),
        (1, "d", 2, 0),
        (1, "c", 1, 1),
    ):
        AuditHour.objects.create(
            hour=NOON - n * HOUR,
            facet="actor",
            value=value,
            allowed=allowed,
            denied=refused,
        )
    expected = [("b", 0, 4), ("a", 2, 1), ("c", 1, 1), ("d", 2, 0)]
    assert AuditHour.objects.all().value_totals() == expected
    assert AuditHour.objects.all().value_totals(2) == expected[:2]


def test_a_purge_deletes_hours_older_than_every_page() -> None:
    for at in (NOON - RETENTION - TICK, NOON - RETENTION, NOON):
        AuditHour.objects.create(hour=at, facet="action", allowed=1, denied=0)
    assert AuditHour.objects.all().purge(NOON) == 1
    left = set(AuditHour.objects.values_list("hour", flat=True))
    assert left == {NOON - RETENTION, NOON}


def test_an_hour_is_shown_with_its_facet() -> None:
    row = AuditHour(hour=NOON, facet="actor", value="ann", allowed=1, denied=0)
    assert str(row) == "actor ann 2026-05-10 12"


def test_every_facet_starts_empty() -> None:
    for verdicts in empty_counts().values():
        assert verdicts == {"allowed": Counter(), "denied": Counter()}
