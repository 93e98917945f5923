"""Rows of primitives follow the code, and keep what an admin has set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import Scope
from mcp_bridge.models import (
    SCOPE_PREFIX,
    Offer,
    Primitive,
    PrimitiveKind,
    own_scope,
    summary,
)

NONE = {"added": 0, "changed": 0, "vanished": 0, "returned": 0}
OWN = {
    "tool": "tool:x",
    "prompt": "prompt:x",
    "resource": "resource:x",
    "resource_template": "resource:x",
}
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def tool(name: str = "saw", **fields: Any) -> Offer:
    defaults: dict[str, Any] = {
        "title": "Saw",
        "description": "Saws.",
        "scopes": ("User.Read",),
        "sensitive": False,
        "definition": "a" * 64,
    }
    return Offer("tool", name, **defaults | fields)


@pytest.fixture
def saw(db: None) -> Primitive:
    """A primitive that the code provides, last seen at noon."""
    Primitive.objects.all().delete()
    Primitive.objects.sync([tool()])
    Primitive.objects.update(first_seen_at=NOON, last_seen_at=NOON)
    return Primitive.objects.get()


@pytest.mark.parametrize("kind", PrimitiveKind)
def test_every_kind_has_a_scope_of_its_own(kind: PrimitiveKind) -> None:
    assert own_scope(kind, "x") == own_scope(kind.value, "x") == OWN[kind]
    assert Primitive(kind=kind.value, name="x").own_scope == OWN[kind]
    assert Offer(kind, "x", "", "", (), False, "").own_scope == OWN[kind]
    assert set(SCOPE_PREFIX) == set(PrimitiveKind)


@pytest.mark.parametrize("sensitive", [True, False])
def test_a_new_primitive_has_what_its_author_proposes(
    db: None, sensitive: bool
) -> None:
    Primitive.objects.all().delete()
    offer = tool(scopes=("New.Scope", "User.Read"), sensitive=sensitive)
    assert Primitive.objects.sync([offer]) == NONE | {"added": 1}
    row = Primitive.objects.get()
    assert (row.kind, row.name, row.title) == ("tool", "saw", "Saw")
    assert (row.description, row.definition) == ("Saws.", "a" * 64)
    assert row.enabled and row.sensitive is sensitive
    assert row.changed_at is None and row.vanished_at is None
    scopes = {scope.name for scope in row.required_scopes.all()}
    assert scopes == {"tool:saw", "New.Scope", "User.Read"}
    assert Scope.objects.filter(name="User.Read").count() == 1


def test_a_known_primitive_keeps_the_settings_of_an_admin(saw: Primitive) -> None:
    saw.required_scopes.set([Scope.objects.get(name="Admin.Write")])
    Primitive.objects.update(enabled=False, sensitive=True)
    before = timezone.now()
    offer = tool(title="New", description="Cuts.", scopes=("Guest.Read",))
    assert Primitive.objects.sync([offer]) == NONE
    row = Primitive.objects.get()
    assert row.enabled is False and row.sensitive is True
    assert [scope.name for scope in row.required_scopes.all()] == ["Admin.Write"]
    assert (row.title, row.description) == ("New", "Cuts.")
    assert row.first_seen_at == NOON and row.last_seen_at != NOON
    assert before <= row.last_seen_at <= timezone.now()
    assert row.changed_at is None


def test_a_changed_definition_is_marked_until_it_is_accepted(saw: Primitive) -> None:
    changed = tool(definition="b" * 64)
    before = timezone.now()
    assert Primitive.objects.sync([changed]) == NONE | {"changed": 1}
    row = Primitive.objects.get()
    assert row.definition == "b" * 64
    assert row.changed_at and row.changed_at >= before
    marked = row.changed_at
    assert Primitive.objects.sync([changed]) == NONE
    row.refresh_from_db()
    assert row.changed_at == marked, "not accepted yet"
    Primitive.objects.update(enabled=False)
    row.accept_definition()
    row.refresh_from_db()
    assert row.changed_at is None and row.enabled is False


@pytest.mark.parametrize("enabled", [True, False])
def test_a_vanished_primitive_is_disabled_and_returns_as_it_was(
    saw: Primitive, enabled: bool
) -> None:
    Primitive.objects.update(enabled=enabled)
    before = timezone.now()
    assert Primitive.objects.sync([]) == NONE | {"vanished": 1}
    row = Primitive.objects.get()
    assert row.enabled is False and row.last_seen_at == NOON
    assert row.vanished_at is not None and row.vanished_at >= before
    vanished = row.vanished_at
    assert Primitive.objects.sync([]) == NONE
    row.refresh_from_db()
    assert row.vanished_at == vanished and row.enabled_before is enabled
    assert Primitive.objects.sync([tool()]) == NONE | {"returned": 1}
    row.refresh_from_db()
    assert row.enabled is enabled and row.vanished_at is None


def test_a_primitive_that_returns_changed_counts_as_changed(saw: Primitive) -> None:
    """It must be reviewed; that it was away does not matter."""
    Primitive.objects.sync([])
    changed = tool(definition="b" * 64)
    assert Primitive.objects.sync([changed]) == NONE | {"changed": 1}
    row = Primitive.objects.get()
    assert row.enabled and row.vanished_at is None and row.changed_at is not None


def test_primitives_of_one_name_and_other_kinds_are_others(saw: Primitive) -> None:
    prompt = Offer("prompt", "saw", "", "", (), False, "c" * 64)
    assert Primitive.objects.sync([tool(), prompt]) == NONE | {"added": 1}
    assert Primitive.objects.sync([prompt]) == NONE | {"vanished": 1}
    assert Primitive.objects.get(kind="prompt").enabled
    assert not Primitive.objects.get(kind="tool").enabled


def test_a_sync_is_all_or_nothing(saw: Primitive) -> None:
    """A failure must not disable what the code still offers."""
    broken = tool("bad", definition=None)
    with pytest.raises(IntegrityError), transaction.atomic():
        Primitive.objects.sync([tool("axe"), broken])
    assert [row.name for row in Primitive.objects.all()] == ["saw"]
    assert Primitive.objects.get().enabled


def test_only_the_rows_of_the_queryset_are_synced(saw: Primitive) -> None:
    prompt = Offer("prompt", "p", "", "", (), False, "c" * 64)
    Primitive.objects.sync([tool(), prompt])
    prompts = Primitive.objects.filter(kind="prompt")
    assert prompts.sync([]) == NONE | {"vanished": 1}
    assert Primitive.objects.get(kind="tool").enabled


def test_a_kind_has_each_name_once(saw: Primitive) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Primitive.objects.create(kind="tool", name="saw")
    Primitive.objects.create(kind="prompt", name="saw")


def test_primitives_are_listed_by_kind_and_name(saw: Primitive) -> None:
    for kind, name in (("tool", "axe"), ("prompt", "zip")):
        Primitive.objects.create(kind=kind, name=name)
    found = [str(row) for row in Primitive.objects.all()]
    assert found == ["prompt zip", "tool axe", "tool saw"]
    template = Primitive(kind="resource_template", name="a://{n}")
    assert str(template) == "resource template a://{n}"


def test_defaults_close_nothing_and_hide_nothing() -> None:
    row = Primitive(kind="tool", name="x")
    assert row.enabled and not row.sensitive and row.enabled_before
    assert timezone.now() - row.first_seen_at < timedelta(minutes=1)


def test_a_summary_has_the_counts_that_are_not_zero() -> None:
    assert summary(NONE | {"added": 2}) == {"added": 2}
    assert summary(NONE) == {}
