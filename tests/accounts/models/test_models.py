"""Models that decisions read: append-only audit, bulk methods, keys, default rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import models

from accounts.models import (
    AuditEvent,
    AuditHead,
    AuditHour,
    AuditSeal,
    Consent,
    ImportDraft,
    Invitation,
    IssuedToken,
    OAuthClient,
    RevokedToken,
    SigningKey,
    User,
)
from accounts.parsing.text import one_line
from accounts.tokens import jwts
from accounts.tokens.issue import AccessToken, RefreshToken, issue_tokens
from accounts.tokens.principal import Unauthenticated, authenticate
from mcp_bridge.models import Offer, Primitive

pytestmark = pytest.mark.django_db


def test_audit_events_are_append_only(alice: User) -> None:
    """Code cannot change one by accident."""
    event = AuditEvent(action="test.written").acted_by(alice)
    event.save()
    for rewrite in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(reason="rewritten"),
    ):
        with pytest.raises(TypeError, match="append-only"):
            rewrite()
    assert str(event) == "test.written"


def test_no_app_without_migrations_has_tables() -> None:
    """The migrations of this library would only change models that are replaced."""
    (name,) = settings.MIGRATION_MODULES
    found = list(apps.get_app_config(name).get_models(include_swapped=True))
    assert len(found) == 6 and all(model._meta.swapped for model in found)


VERBS: dict[type[models.Model], tuple[str, ...]] = {
    AuditHead: ("advance",),
    AuditHour: ("purge", "roll_up"),
    AuditSeal: ("purge", "reauthenticate", "seal"),
    Consent: ("withdraw",),
    ImportDraft: ("purge",),
    Invitation: ("withdraw",),
    IssuedToken: ("drop_successors", "purge", "revoke"),
    OAuthClient: ("end_access", "end_pending", "purge"),
    RevokedToken: ("purge",),
    User: ("deactivate", "revoke_all_sessions", "sign_out_browsers"),
}
"""Model -> methods that change many rows."""


@pytest.mark.parametrize("model", VERBS, ids=lambda model: model.__name__)
def test_bulk_methods_are_not_on_managers_or_in_templates(model: Any) -> None:
    """`objects.revoke()` must not revoke every row."""
    for verb in VERBS[model]:
        assert getattr(model.objects.all(), verb).alters_data is True, verb
        assert not hasattr(model.objects, verb), verb
    assert not hasattr(User.objects, "lock_rows")


def test_every_change_of_a_model_has_its_migration() -> None:
    """A dropped constraint, default, index or order would need one."""
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_a_user_is_deactivated_with_all_tokens(alice: User, bob: User) -> None:
    pair, other = (
        issue_tokens(alice, issued_via="command"),
        issue_tokens(bob, issued_via="command"),
    )
    closed = User.objects.filter(pk=alice.pk).deactivate(actor="test")
    assert closed == 1 and authenticate(other.access).username == "bob"
    with pytest.raises(Unauthenticated) as refused:
        authenticate(pair.access)
    assert refused.value.reason == "revoked"


@pytest.mark.spec("RFC 8725 3.1")
def test_algorithms_cannot_be_confused(alice: User) -> None:
    """RFC 8725 3.1: `none`, HS256 with the public key, a foreign kid."""
    import jwt

    key = SigningKey.objects.ensure_active()
    claims = jwts.verify(issue_tokens(alice, issued_via="command").access)
    header = {"kid": key.kid, "typ": "at+jwt"}
    forged = [
        jwt.encode(claims, "", algorithm="none", headers=header),
        jwt.encode(claims, "k" * 40, algorithm="HS256", headers=header),
        jwt.encode(claims, "k" * 40, algorithm="HS256", headers={"kid": "x"}),
        jwt.encode(claims, "k" * 40, algorithm="HS256"),
        jwts.sign(claims)[0][:-4] + "AAAA",
    ]
    for raw in forged:
        with pytest.raises(jwts.TokenRefused):
            jwts.verify(raw)


@pytest.mark.spec("RFC 9068 2.1")
def test_header_type_and_kind_must_agree(alice: User, monkeypatch: Any) -> None:
    """RFC 9068 2.1: explicit typing."""
    claims = jwts.verify(issue_tokens(alice, issued_via="command").access)
    monkeypatch.setitem(jwts.HEADER_TYPES, "access", "JWT")
    raw = jwts.sign(claims)[0]
    monkeypatch.undo()
    with pytest.raises(jwts.TokenRefused, match="does not match"):
        jwts.verify(raw)


def test_tokens_of_simplejwts_classes_are_listed(alice: User) -> None:
    refresh = RefreshToken.for_user(alice)
    access = AccessToken.for_user(alice)
    assert authenticate(str(access)).username == "alice"
    listed = IssuedToken.objects.filter(jti__in=[refresh["jti"], access["jti"]])
    assert listed.count() == 2 and {row.state for row in listed} == {"active"}
    assert "alice" in str(listed[0])


def test_a_token_without_its_row_is_refused(alice: User) -> None:
    """The admin has to list every token that works."""
    pair = issue_tokens(alice, issued_via="command")
    IssuedToken.objects.filter(pk=pair.row.pk).delete()
    with pytest.raises(Unauthenticated):
        authenticate(pair.access)


def test_text_from_outside_stays_on_one_line() -> None:
    assert one_line("a\nb\x1b[0m" + "x" * 500) == "a b [0m" + "x" * 248


def define_tool(name: str, definition: str = "a", **more: Any) -> Offer:
    fields = {"scopes": ("User.Read",), "sensitive": False, **more}
    return Offer("tool", name, "", "", definition=definition, **fields)


def test_sync_adds_marks_disables_and_restores(db: None) -> None:
    """New primitives are denied, changed ones marked, missing ones disabled."""
    Primitive.objects.all().delete()
    sync = Primitive.objects.sync
    assert sync([define_tool("a"), define_tool("b")])["added"] == 2
    a = Primitive.objects.get(name="a")
    assert {s.name for s in a.required_scopes.all()} == {"tool:a", "User.Read"}
    assert a.enabled and a.changed_at is None and str(a) == "tool a"
    a.required_scopes.clear()
    assert sync([define_tool("a", "changed"), define_tool("b")])["changed"] == 1
    a.refresh_from_db()
    assert a.changed_at is not None and not a.required_scopes.exists()
    a.accept_definition()
    Primitive.objects.filter(name="b").update(enabled=False)
    assert sync([])["vanished"] == 2
    assert not Primitive.objects.servable().exists()
    assert sync([])["vanished"] == 0
    assert sync([define_tool("a", "changed"), define_tool("b")])["returned"] == 2
    states = dict(Primitive.objects.values_list("name", "enabled"))
    assert states == {"a": True, "b": False}
