"""Rows of primitives follow the code, and keep what an admin has set."""

from __future__ import annotations

from dataclasses import replace
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
    UpstreamServer,
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
    assert row.state == "changed" and not row.calls_refused, "the code runs"
    row.accept_definition()
    row.refresh_from_db()
    assert row.changed_at is None and row.enabled is False
    assert row.state == "accepted" and row.accepted_hash == "b" * 64


@pytest.mark.parametrize("enabled", [True, False])
def test_a_vanished_primitive_is_gone_and_returns_as_it_was(
    saw: Primitive, enabled: bool
) -> None:
    Primitive.objects.update(enabled=enabled)
    before = timezone.now()
    assert Primitive.objects.sync([]) == NONE | {"vanished": 1}
    row = Primitive.objects.get()
    assert row.state == "gone" and row.last_seen_at == NOON
    assert not Primitive.objects.servable().exists()
    assert row.vanished_at is not None and row.vanished_at >= before
    vanished = row.vanished_at
    assert Primitive.objects.sync([]) == NONE
    row.refresh_from_db()
    assert row.vanished_at == vanished and row.enabled is enabled
    assert Primitive.objects.sync([tool()]) == NONE | {"returned": 1}
    row.refresh_from_db()
    assert row.enabled is enabled and row.vanished_at is None
    assert row.state == "accepted"
    assert Primitive.objects.servable().exists() is enabled


def test_of_a_list_that_was_cut_nothing_is_gone(saw: Primitive) -> None:
    """The source may still offer it on a page that was not read."""
    assert Primitive.objects.sync([], cut={"prompt", "tool"}) == NONE
    assert Primitive.objects.get().state == "accepted"
    assert Primitive.objects.sync([], cut={"prompt"}) == NONE | {"vanished": 1}


def test_a_primitive_that_returns_changed_waits_for_a_decision(saw: Primitive) -> None:
    Primitive.objects.sync([tool()])
    Primitive.objects.sync([])
    changed = tool(definition="b" * 64)
    assert Primitive.objects.sync([changed]) == NONE | {"changed": 1}
    row = Primitive.objects.get()
    assert row.enabled and row.vanished_at is None and row.changed_at is not None
    assert row.state == "changed" and row.calls_refused
    assert Primitive.objects.sync([changed]) == NONE
    row.refresh_from_db()
    assert row.calls_refused, "until it is accepted"
    row.accept_definition()
    assert (row.state, row.calls_refused) == ("accepted", False)


def test_primitives_of_one_name_and_other_kinds_are_others(saw: Primitive) -> None:
    prompt = Offer("prompt", "saw", "", "", (), False, "c" * 64)
    assert Primitive.objects.sync([tool(), prompt]) == NONE | {"added": 1}
    assert Primitive.objects.sync([prompt]) == NONE | {"vanished": 1}
    assert [row.kind for row in Primitive.objects.servable()] == ["prompt"]


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
    assert row.enabled and not row.sensitive and row.state == "accepted"
    assert timezone.now() - row.first_seen_at < timedelta(minutes=1)


def test_a_summary_has_the_counts_that_are_not_zero() -> None:
    assert summary(NONE | {"added": 2}) == {"added": 2}
    assert summary(NONE) == {}


@pytest.fixture
def acme(db: None) -> UpstreamServer:
    Primitive.objects.all().delete()
    return UpstreamServer.objects.create(name="acme", url="https://acme.example/mcp")


def search(
    definition: str = "a" * 64, name: str = "acme__search", **more: Any
) -> Offer:
    """What an upstream server offers."""
    shown = {"name": name, "inputSchema": {"type": "object"}} | more
    return Offer("tool", name, "", "", (), False, definition, shown, "search")


def found() -> Primitive:
    return Primitive.objects.get(name="acme__search")


def test_a_source_touches_only_its_own_rows(acme: UpstreamServer) -> None:
    Primitive.objects.sync([tool()])
    assert Primitive.objects.sync([search()], acme) == NONE | {"added": 1}
    assert Primitive.objects.sync([tool()]) == NONE
    assert Primitive.objects.sync([], acme) == NONE | {"vanished": 1}
    states = dict(Primitive.objects.values_list("name", "state"))
    assert states == {"saw": "accepted", "acme__search": "gone"}


def test_a_held_definition_is_served_once_it_is_accepted(acme: UpstreamServer) -> None:
    Primitive.objects.sync([search()], acme, hold=True)
    row = found()
    assert (row.state, row.accepted, row.accepted_hash) == ("held", None, "")
    assert row.offered == dict(search().shown) and row.upstream_name == "search"
    assert not Primitive.objects.servable().exists()
    Primitive.objects.sync([search("b" * 64)], acme, hold=True)
    assert found().state == "held"
    found().accept_definition()
    assert found().state == "accepted" and found().accepted == found().offered
    assert Primitive.objects.servable().exists()
    UpstreamServer.objects.update(enabled=False)
    assert not Primitive.objects.servable().exists()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"description": "x"}, False),
        ({"title": "x"}, False),
        ({"inputSchema": {"type": "object", "required": ["a"]}}, True),
        ({"annotations": {"readOnlyHint": True}}, True),
        ({"outputSchema": {"type": "object"}}, False),
    ],
)
def test_a_change_refuses_calls_if_it_concerns_them(
    acme: UpstreamServer, change: dict[str, Any], refused: bool
) -> None:
    Primitive.objects.sync([search()], acme)
    before = found().accepted
    changed = search("b" * 64, **change)
    assert Primitive.objects.sync([changed], acme) == NONE | {"changed": 1}
    row = found()
    assert (row.state, row.calls_refused) == ("changed", refused)
    assert row.accepted == before and row.offered == dict(changed.shown)
    later = search("c" * 64, description="y")
    assert Primitive.objects.sync([later], acme) == NONE | {"changed": 1}
    assert found().calls_refused is False, "compared with what is accepted"
    assert Primitive.objects.sync([search()], acme) == NONE
    assert (found().state, found().calls_refused) == ("accepted", False)


def test_a_changed_definition_that_was_gone_is_refused(acme: UpstreamServer) -> None:
    Primitive.objects.sync([search()], acme)
    Primitive.objects.sync([], acme)
    text = search("b" * 64, description="x")
    Primitive.objects.sync([text], acme)
    assert (found().state, found().calls_refused) == ("changed", True)
    Primitive.objects.sync([text], acme)
    assert found().calls_refused


@pytest.mark.parametrize("hold", [True, False])
def test_a_rejected_definition_stays_rejected_until_it_changes(
    acme: UpstreamServer, hold: bool
) -> None:
    Primitive.objects.sync([search()], acme, hold=hold)
    if not hold:
        Primitive.objects.sync([search("b" * 64, title="x")], acme)
    found().reject_definition("It asks for passwords.")
    same = search("b" * 64, title="x") if not hold else search()
    for _ in range(2):
        Primitive.objects.sync([same], acme, hold=hold)
        row = found()
        assert (row.state, row.problem) == ("rejected", "It asks for passwords.")
        assert not Primitive.objects.servable().exists()
    Primitive.objects.sync([search("d" * 64, title="y")], acme, hold=hold)
    assert found().state == ("held" if hold else "changed") and not found().problem


def test_what_cannot_be_served_is_a_row_with_the_reason(acme: UpstreamServer) -> None:
    broken = replace(search(), problem="Its schema is no schema.")
    Primitive.objects.sync([broken], acme)
    assert (found().state, found().problem) == ("unusable", "Its schema is no schema.")
    with pytest.raises(ValueError, match="no schema"):
        found().accept_definition()
    Primitive.objects.sync([search()], acme)
    assert (found().state, found().problem) == ("held", "")
    found().accept_definition()
    Primitive.objects.sync([broken], acme)
    row = found()
    assert (row.state, row.calls_refused) == ("changed", True) and row.problem


def test_long_texts_are_cut_to_their_columns(acme: UpstreamServer) -> None:
    """PostgreSQL refuses longer ones, and with them every definition of the server."""
    long = "x" * 3_000
    uri = replace(search(name="note://" + "a" * 239), kind="resource")
    texts = replace(search(), title=long, description=long, problem=long)
    Primitive.objects.sync([texts, uri, replace(uri, definition="b" * 64)], acme)
    rows = Primitive.objects.filter(upstream=acme)
    assert len(rows) == 3
    for field in Primitive._meta.local_concrete_fields:
        lengths = {len(str(getattr(row, field.attname))) for row in rows}
        assert field.max_length is None or max(lengths) <= field.max_length, field
    assert max(map(len, Scope.objects.values_list("name", flat=True))) == 255
    row = found()
    assert (row.title, row.description) == (long[:255], long)
    row.reject_definition(long)
    assert row.problem == long[:500]


@pytest.mark.parametrize("kind", PrimitiveKind)
@pytest.mark.parametrize("length", [1, 230, 255, 2_048])
def test_the_names_of_what_cannot_be_served_fit_and_differ(
    length: int, kind: str
) -> None:
    offer = replace(search(name="n" * length), kind=kind)
    problems = [offer.unusable(reason).name for reason in "ab"]
    other = replace(offer, definition="b" * 64).unusable("a").name
    again = offer.unusable("a").name
    assert len({*problems, other}) == 3 and again == problems[0]
    for name in problems:
        assert len(own_scope(kind, name)) <= 255
        assert name.startswith(f"{offer.name[:230]}#")


def test_a_name_that_is_taken_is_a_row_with_the_reason(acme: UpstreamServer) -> None:
    Primitive.objects.sync([tool("acme__search")])
    twice = search(), search("b" * 64)
    assert Primitive.objects.sync(twice, acme) == NONE | {"added": 2}
    assert found().upstream is None
    mine = Primitive.objects.filter(upstream=acme)
    assert {row.state for row in mine} == {"unusable"}
    assert {row.problem for row in mine} == {"Portico already provides acme__search."}
    assert Primitive.objects.sync(twice, acme) == NONE, "under the same names"
    other = UpstreamServer.objects.create(name="b", url="https://b.example/mcp")
    offers = [search("c" * 64, "b__x"), search("d" * 64, "b__x")]
    Primitive.objects.sync(offers, other)
    rows = Primitive.objects.filter(upstream=other).order_by("pk")
    assert [row.problem for row in rows] == ["", "It is offered twice as b__x."]


def test_what_is_gone_cannot_be_accepted(acme: UpstreamServer) -> None:
    Primitive.objects.sync([search()], acme, hold=True)
    Primitive.objects.sync([], acme, hold=True)
    with pytest.raises(ValueError, match="no longer offers"):
        found().accept_definition()


def test_a_changed_definition_of_the_code_can_be_held(saw: Primitive) -> None:
    """By default the code runs at once, and the change is only marked."""
    Primitive.objects.sync([tool(definition="b" * 64)])
    assert not Primitive.objects.get().calls_refused
    Primitive.objects.sync([tool(definition="c" * 64)], hold=True)
    assert Primitive.objects.get().calls_refused
    Primitive.objects.get().accept_definition()
    assert Primitive.objects.sync([tool(definition="c" * 64)], hold=True) == NONE
    assert Primitive.objects.get().state == "accepted"


def test_a_row_without_a_stored_definition_takes_it_over(saw: Primitive) -> None:
    """Its hash is that of another form, so nothing can be compared."""
    Primitive.objects.update(accepted=None, definition="z" * 64, accepted_hash="z" * 64)
    assert Primitive.objects.sync([tool(shown={"name": "saw"})]) == NONE
    row = Primitive.objects.get()
    assert (row.state, row.accepted) == ("accepted", {"name": "saw"})
    assert row.accepted_hash == row.definition == "a" * 64
