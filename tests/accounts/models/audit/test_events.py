"""Audit events name their actor and cannot be changed through the model."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, Consent, Invitation, Role, RoleAssignment
from accounts.models.audit.events import (
    APPEND_ONLY,
    before_and_after_text,
    events_about,
    subject_of,
)
from accounts.models.audit.origins import COMMAND_LINE
from accounts.models.oauth import OAuthGrant
from tests.support.model_rows import person

pytestmark = pytest.mark.django_db


def test_a_user_acts_by_name_and_id() -> None:
    ann = person("ann")
    event = AuditEvent(action="x").acted_by(ann)
    event.save()
    event.refresh_from_db()
    assert (event.actor, event.actor_id) == ("ann", ann.pk)


@pytest.mark.parametrize(
    ("actor", "stored"),
    [(None, ""), ("", ""), (COMMAND_LINE, "command line"), ("a" * 300, "a" * 150)],
)
def test_a_text_acts_without_an_id(actor: str | None, stored: str) -> None:
    event = AuditEvent(action="x").acted_by(actor)
    assert (event.actor, event.actor_id) == (stored, None)


def test_an_event_outlives_its_actor() -> None:
    ann = person("ann")
    key = ann.pk
    AuditEvent(action="x").acted_by(ann).save()
    ann.delete()
    event = AuditEvent.objects.get(action="x")
    assert (event.actor, event.actor_id) == ("ann", key)


@pytest.mark.parametrize("subject", ["user:1", "user:12", "role:1", "USER:1", ""])
def test_the_events_about_a_row_are_about_no_other(subject: str) -> None:
    """Ids begin with other ids; an event without a subject is about no row."""
    subjects = ["user:1", "user:12", "user:123", "role:1", ""]
    for name in subjects:
        AuditEvent(action="x", subject=name).save()
    rows = AuditEvent.objects.filter(events_about(subject), action="x")
    wanted = [name for name in subjects if name and name == subject]
    assert [row.subject for row in rows] == wanted


def test_an_event_is_shown_by_action_and_object() -> None:
    assert str(AuditEvent(action="a.b", object="c")) == "a.b c"
    assert str(AuditEvent(action="a.b")) == "a.b"


def test_new_events_can_be_added_in_bulk() -> None:
    made = AuditEvent.objects.bulk_create(
        (AuditEvent(action=f"bulk.{n}") for n in range(5)), batch_size=2
    )
    assert len(made) == 5
    stored = AuditEvent.objects.filter(action__startswith="bulk.").order_by("id")
    assert [event.action for event in stored] == [f"bulk.{n}" for n in range(5)]


REFUSED: dict[str, Any] = {
    "an id": ([AuditEvent(action="a"), AuditEvent(id=7, action="b")], {}),
    "the id 0": ([AuditEvent(id=0, action="a")], {}),
    "updates": (
        [AuditEvent(action="a")],
        {"update_conflicts": True, "update_fields": ["action"]},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bulk_inserts_with_ids_or_updates_are_refused(name: str) -> None:
    rows, options = REFUSED[name]
    with pytest.raises(TypeError, match=APPEND_ONLY):
        AuditEvent.objects.bulk_create(rows, **options)
    assert not AuditEvent.objects.filter(action__in="ab").exists()


@pytest.mark.parametrize("key", [0, 7])
@pytest.mark.parametrize("way", ["save", "save_base"])
def test_an_event_with_an_id_is_not_saved(key: int, way: str) -> None:
    with pytest.raises(TypeError, match=APPEND_ONLY):
        getattr(AuditEvent(id=key, action="chosen"), way)()
    assert not AuditEvent.objects.filter(action="chosen").exists()


def test_the_newest_event_is_listed_first() -> None:
    at = timezone.now() + timedelta(days=1)
    for name, moment in (("a", at), ("b", at), ("c", at + timedelta(days=1))):
        AuditEvent(action=f"order.{name}", at=moment).save()
    found = AuditEvent.objects.filter(action__startswith="order.")
    assert [event.action[-1] for event in found] == ["c", "b", "a"]


@pytest.mark.parametrize("part", [Invitation, Consent, OAuthGrant, RoleAssignment])
def test_a_part_of_a_user_is_in_the_history_of_the_user(part: Any) -> None:
    row = part(pk=3, user_id=7)
    assert subject_of(row) == AuditEvent().about(row).subject == "user:7"
    assert subject_of(Role(pk=3)) == "role:3"


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ([1, 2], ("1", "2")),
        ([None, ""], ("-", "-")),
        ([["a", "b"], []], ("a, b", "-")),
        (5, ("", "5")),
        ([1, 2, 3], ("", "1, 2, 3")),
        (None, ("", "-")),
    ],
)
def test_a_change_has_a_text_before_and_after(
    value: Any, texts: tuple[str, str]
) -> None:
    assert before_and_after_text(value) == texts
    assert AuditEvent(changes={"a": value}).change_rows == [("a", *texts)]


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "null", "[" * 100_000])
def test_a_column_of_another_program_records_nothing(text: str) -> None:
    assert AuditEvent(arguments=text).recorded == {}
    assert AuditEvent(arguments='{"policy":"full"}').recorded == {"policy": "full"}
