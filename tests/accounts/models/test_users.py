"""Accounts: addresses, session hashes, and what each way to end access ends."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import models
from django.http import HttpRequest
from django.test import Client, RequestFactory

from accounts.http.session_store import SessionStore, stored_key
from accounts.models import (
    AuditEvent,
    Consent,
    IssuedToken,
    OAuthDeviceGrant,
    OAuthGrant,
    User,
    issued_tokens,
)
from accounts.models.users import EpochField, UserQuerySet, fold_name
from tests.support.model_rows import (
    client_row,
    code_row,
    consent_row,
    device_row,
    events_of,
    past,
    person,
    record_locks,
    reload,
    session_row,
    token_row,
)
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.django_db
NAMES = ("ann", "bea", "cleo", "dora", "emma")


def holder(name: str, **columns: Any) -> User:
    """An account with one of each kind of access, at its own client."""
    user = person(name, **columns)
    client = client_row(f"of-{name}", name=f"Client of {name}")
    token_row(user), code_row(user, client), consent_row(user, client)
    device_row(client.client_id, user=user)
    session_row(user)
    return user


def access_of(user: User) -> dict[str, int]:
    """The number of rows of each kind."""
    rows: dict[str, models.QuerySet[Any]] = {
        "tokens": IssuedToken.objects.filter(user=user).live(),
        "codes": OAuthGrant.objects.filter(user=user),
        "devices": OAuthDeviceGrant.objects.filter(user=user),
        "consents": Consent.objects.filter(user=user),
        "sessions": UserSession.objects.filter(user=user),
    }
    return {name: found.count() for name, found in rows.items()}


WHOLE = {"tokens": 1, "codes": 1, "devices": 1, "consents": 1, "sessions": 1}
NONE = dict.fromkeys(WHOLE, 0)
WITHOUT_BROWSERS = {**WHOLE, "codes": 0, "devices": 0, "sessions": 0}


def epoch(user: User) -> int:
    return int(User.objects.get(pk=user.pk).session_epoch)


def of(*users: User) -> UserQuerySet:
    found: UserQuerySet = User.objects.filter(pk__in=[user.pk for user in users])
    return found


@pytest.fixture
def two() -> tuple[User, User]:
    return holder("ann"), holder("bea")


def signed_in_request(user: User) -> HttpRequest:
    """A request of a browser session of the user."""
    request = RequestFactory().get("/")
    request.session = SessionStore()
    request.session.save()
    request.user = user
    key = stored_key(str(request.session.session_key))
    UserSession.objects.create(user=user, session_key=key, ip="192.0.2.1")
    return request


@pytest.mark.parametrize("spelling", ["Ann@Example.ORG", "ann@example.org"])
def test_addresses_are_stored_and_found_in_lower_case(spelling: str) -> None:
    user = person("ann", email=spelling)
    user.refresh_from_db()
    assert user.email == "ann@example.org"
    assert User.objects.filter(email=spelling).get() == user
    field = User._meta.get_field("email")
    assert field.to_python(spelling) == field.get_prep_value(spelling) == user.email
    assert field.to_python(None) is None and field.get_prep_value(None) is None


def test_an_address_finds_its_accounts() -> None:
    ann, twin = person("ann", email="a@x.org"), person("twin", email="A@x.org")
    closed = person("closed", email="a@x.org", is_active=False)
    person("bea", email="b@x.org")
    found = User.objects.all().with_email("A@X.org")
    assert {user.pk for user in found} == {ann.pk, twin.pk, closed.pk}


def test_an_address_that_only_the_database_takes_as_equal_finds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CVE-2019-19844: the Kelvin sign in upper case is a K, for some databases."""
    person("ann", email="mike@example.org")
    rows = User.objects.all()
    monkeypatch.setattr(UserQuerySet, "filter", lambda self, **lookups: self)
    assert rows.with_email("mi\u0131e@example.org") == []
    assert [user.username for user in rows.with_email("MIKE@example.org")] == ["ann"]


def test_only_addresses_set_by_administrators_link_accounts() -> None:
    mine = person("ann", email="a@x.org")
    person("bea", email="a@x.org", email_set_by_admin=False)
    person("cleo", email="c@x.org")
    assert User.objects.all().with_admin_set_email("A@x.org") == [mine]


def test_deactivating_ends_the_access_of_these_accounts(two: tuple[User, User]) -> None:
    ann, bea = two
    assert of(ann).deactivate(actor="carol") == 1
    reload(ann, bea)
    assert not ann.is_active and access_of(ann) == NONE and ann.session_epoch == 1
    assert bea.is_active and access_of(bea) == WHOLE and bea.session_epoch == 0
    (event,) = events_of("token.revoked")
    assert (event.actor, event.reason) == ("carol", "account deactivated")


def test_deactivating_leaves_inactive_accounts_alone(two: tuple[User, User]) -> None:
    ann, bea = two
    of(ann).update(is_active=False)
    assert of(ann, bea).deactivate(actor="carol", reason="left") == 1
    assert epoch(ann) == 0 and epoch(bea) == 1
    assert {e.reason for e in events_of("token.revoked")} == {"left"}


def test_a_failed_end_of_access_deactivates_nobody(
    two: tuple[User, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UserQuerySet, "revoke_all_sessions", None)
    with pytest.raises(TypeError):
        of(*two).deactivate(actor="carol")
    assert User.objects.filter(pk__in=[u.pk for u in two], is_active=True).count() == 2


EVENTS = {
    "token.revoked": "access token of ann",
    "consent.withdrawn": "consent of ann",
    "session.ended": "ann",
}
"""What the end of all access writes, besides two `code.revoked`."""


def test_ending_access_writes_an_event_for_everything(two: tuple[User, User]) -> None:
    ann, bea = two
    carol = person("carol")
    assert of(ann).revoke_all_sessions(actor=carol, reason="lost laptop") == (1, 1)
    assert access_of(ann) == NONE and access_of(bea) == WHOLE
    assert epoch(ann) == 1 and epoch(bea) == 0
    for action, named in EVENTS.items():
        (event,) = events_of(action)
        assert (event.object, event.reason) == (named, "lost laptop")
        assert (event.actor, event.actor_id) == ("carol", carol.pk)
    codes = events_of("code.revoked")
    assert [e.object for e in codes] == [
        "authorization code of ann",
        "device code of ann",
    ]
    assert {(e.actor, e.reason, e.client_id) for e in codes} == {
        ("carol", "lost laptop", "of-ann")
    }


def test_a_long_reason_is_cut_in_every_event() -> None:
    of(holder("ann")).revoke_all_sessions(actor="carol", reason="r" * 300)
    for action in (*EVENTS, "code.revoked"):
        assert {event.reason for event in events_of(action)} == {"r" * 255}


def test_ending_browser_sessions_keeps_tokens_and_consents(
    two: tuple[User, User],
) -> None:
    ann, bea = two
    assert of(ann).sign_out_browsers(actor=ann, reason="new factor") == 1
    assert access_of(ann) == WITHOUT_BROWSERS and access_of(bea) == WHOLE
    assert epoch(ann) == 1 and epoch(bea) == 0
    (event,) = events_of("session.ended")
    assert (event.object, event.actor, event.reason) == ("ann", "ann", "new factor")
    assert [e.reason for e in events_of("code.revoked")] == ["new factor"] * 2


@pytest.mark.parametrize("way", ["deactivate", "revoke_all_sessions"])
def test_every_batch_of_accounts_loses_access(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)
    users = [holder(name) for name in NAMES]
    done = getattr(of(*users), way)(actor="carol", reason="x")
    assert done == (5 if way == "deactivate" else (5, 5))
    assert [access_of(user) for user in users] == [NONE] * 5
    assert [epoch(user) for user in users] == [1] * 5
    assert {e.object for e in events_of("session.ended")} == set(NAMES)


def test_every_batch_of_accounts_is_signed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)
    users = [holder(name) for name in NAMES]
    assert of(*users).sign_out_browsers(actor="carol", reason="x") == 5
    assert [access_of(user) for user in users] == [WITHOUT_BROWSERS] * 5
    assert [epoch(user) for user in users] == [1] * 5


@pytest.mark.parametrize("way", ["revoke_all_sessions", "sign_out_browsers"])
def test_a_failed_event_ends_nothing(
    two: tuple[User, User], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """One transaction: access that ended without an event would not be explained."""
    monkeypatch.setattr(UserQuerySet, "_end_browser_sessions", None)
    with pytest.raises(TypeError):
        getattr(of(*two), way)(actor="carol", reason="x")
    assert access_of(two[0]) == WHOLE
    assert not AuditEvent.objects.filter(actor="carol").exists()


@pytest.mark.parametrize("way", ["revoke_all_sessions", "sign_out_browsers"])
def test_the_session_of_the_request_stays_signed_in(way: str) -> None:
    """The request gets the hash of the new epoch; other sessions end."""
    ann = holder("ann")
    request = signed_in_request(ann)
    kept = stored_key(str(request.session.session_key))
    getattr(of(ann), way)(actor=ann, reason="x", keep=request)
    assert len(events_of("session.ended")) == 1
    (row,) = UserSession.objects.filter(user=ann)
    assert request.user.session_epoch == 1 == epoch(ann)  # type: ignore[union-attr]
    hashed = request.session["_auth_user_hash"]
    assert hashed == User.objects.get(pk=ann.pk).get_session_auth_hash()
    # A changed hash also changes the key of the session.
    assert row.session_key == stored_key(str(request.session.session_key)) != kept


def test_an_administrators_session_is_not_touched_by_anothers_end() -> None:
    carol, ann = person("carol"), holder("ann")
    request = signed_in_request(carol)
    key = request.session.session_key
    of(ann).revoke_all_sessions(actor=carol, reason="x", keep=request)
    assert access_of(ann) == NONE and epoch(carol) == 0
    assert request.session.session_key == key
    assert "_auth_user_hash" not in request.session
    assert UserSession.objects.filter(user=carol).count() == 1


def test_accounts_are_locked_while_access_ends(monkeypatch: Any) -> None:
    """A concurrent code exchange waits, and then finds the account changed."""
    ann = holder("ann")
    for way in ("deactivate", "revoke_all_sessions", "sign_out_browsers"):
        locked = record_locks(monkeypatch)
        getattr(of(ann), way)(actor="carol", reason="x")
        assert "User" in locked, way
        monkeypatch.undo()


def test_locked_rows_are_those_of_the_query_in_order_of_their_ids() -> None:
    ann, bea, cleo = (person(name) for name in ("ann", "bea", "cleo"))
    rows = of(cleo, ann).order_by("-username")
    assert rows.lock_rows() == [ann.pk, cleo.pk]
    assert of(bea).lock_rows() == [bea.pk]


def test_a_session_without_a_list_row_ends_by_the_epoch() -> None:
    """`get_session_auth_hash` covers the epoch and the password."""
    ann = person("ann", password="unusable")
    before, digest = ann.get_session_auth_hash(), ann.auth_digest
    of(ann).revoke_all_sessions(actor="carol", reason="x")
    ann.refresh_from_db()
    after, changed = ann.get_session_auth_hash(), ann.auth_digest
    assert before != after and digest != changed
    ann.password = "another"
    assert ann.get_session_auth_hash() != after and ann.auth_digest != changed
    assert len({before, after, digest, changed}) == 4


def test_sessions_survive_a_change_of_the_secret_key(settings: Any) -> None:
    """SECRET_KEY_FALLBACKS keeps them until their epoch or password changes."""
    settings.SECRET_KEY = "first key of thirty-two characters"
    ann = person("ann")
    before = ann.get_session_auth_hash()
    settings.SECRET_KEY = "second key of thirty-two characters"
    settings.SECRET_KEY_FALLBACKS = ["first key of thirty-two characters"]
    assert list(ann.get_session_auth_fallback_hash()) == [before]
    assert ann.get_session_auth_hash() != before
    ann.session_epoch += 1
    assert list(ann.get_session_auth_fallback_hash()) != [before]


def test_saving_an_older_object_does_not_restore_ended_sessions() -> None:
    ann = person("ann")
    User.objects.filter(pk=ann.pk).update(session_epoch=3)
    ann.first_name = "Ann"
    ann.save()
    found = User.objects.get(pk=ann.pk)
    assert (found.session_epoch, found.first_name) == (3, "Ann")
    assert (
        person("bea", session_epoch=2).session_epoch
        == 2
        == epoch(User.objects.get(username="bea"))
    )
    *_, path, args, kwargs = EpochField(default=0).deconstruct()
    assert path == "django.db.models.PositiveIntegerField" and kwargs == {"default": 0}


def test_revoking_the_tokens_of_one_account_ends_its_access(
    two: tuple[User, User],
) -> None:
    ann, bea = two
    token_row(ann), token_row(ann, expires_at=past())
    assert ann.revoke_tokens(actor="carol", reason="lost") == 2
    assert ann.session_epoch == 1 and access_of(ann) == NONE
    assert access_of(bea) == WHOLE
    assert {e.reason for e in events_of("token.revoked")} == {"lost"}


def test_revoking_ones_own_tokens_keeps_the_own_session() -> None:
    ann = person("ann")
    request = signed_in_request(ann)
    ann.revoke_tokens(actor=ann, reason="x", keep=request)
    assert UserSession.objects.filter(user=ann).count() == 1
    assert not events_of("session.ended") and Session.objects.count() == 1


def test_an_unusable_password_ends_access_when_it_is_saved() -> None:
    """Django's `save` tells validators of changes only if `_password` is set."""
    new: Any = User(username="new")
    new.set_unusable_password()
    assert new._password is None
    stored: Any = person("ann")
    stored.set_unusable_password()
    assert stored._password == "" and not stored.has_usable_password()


def test_a_new_superuser_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = User.objects.create_superuser(
        "root", "R@x.org", "a password", first_name="Root"
    )
    made.refresh_from_db()
    assert made.is_superuser and made.is_staff and made.check_password("a password")
    assert (made.email, made.first_name) == ("r@x.org", "Root")
    (event,) = events_of("user.added")
    assert (event.object, event.actor) == ("root", "command line")
    assert event.changes == {"is_superuser": [False, True]}


def test_a_superuser_without_an_event_is_not_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(self: AuditEvent, *args: Any, **options: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(AuditEvent, "save", refused)
    with pytest.raises(RuntimeError):
        User.objects.create_superuser("root", "", None)
    assert not User.objects.filter(username="root").exists()


def test_a_password_is_hashed_before_the_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hashing may queue, and would hold SQLite's only write lock meanwhile."""
    from django.db import connection

    from accounts.models import users

    depth = len(connection.savepoint_ids)
    seen: list[int] = []

    def encoded(password: str | None) -> str:
        seen.append(len(connection.savepoint_ids))
        return "hashed"

    monkeypatch.setattr(users, "make_password", encoded)
    assert User.objects.create_superuser("root", "", "x").password == "hashed"
    assert seen == [depth]


def test_createsuperuser_makes_an_account_without_a_password() -> None:
    call_command("createsuperuser", interactive=False, username="root", email="")
    root = User.objects.get(username="root")
    assert root.is_superuser and not root.has_usable_password()
    (event,) = events_of("user.added")
    assert (event.object, event.subject) == ("root", f"user:{root.pk}")
    assert event.changes == {"is_superuser": [False, True]}


def test_accounts_are_listed_by_name() -> None:
    for name in ("cleo", "ann", "bea"):
        person(name)
    assert [u.username for u in User.objects.all()] == ["ann", "bea", "cleo"]


def test_a_new_secret_key_with_the_old_one_ends_nothing(
    alice: User, settings: Any
) -> None:
    """SECRET_KEY_FALLBACKS: sessions, unfinished sign-ins and codes go on."""
    settings.STORAGES = {**settings.STORAGES, **UNCOLLECTED}
    browser = Client()
    browser.force_login(alice)
    old, digest = settings.SECRET_KEY, alice.auth_digest
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new key " * 6, [old]
    assert alice.auth_digest != digest and alice.accepts_digest(digest)
    assert browser.get("/portal/connect/").status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert not alice.accepts_digest(digest) and not alice.accepts_digest("")
    assert browser.get("/portal/connect/").status_code == 200, "signed again meanwhile"


def test_an_older_secret_key_revives_no_ended_access(
    alice: User, settings: Any
) -> None:
    digest, old = alice.auth_digest, settings.SECRET_KEY
    alice.revoke_tokens(actor=None, reason="test")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new key " * 6, [old]
    assert not alice.accepts_digest(digest)


def test_an_address_is_stored_and_looked_up_in_lower_case() -> None:
    """From any form, file or command; two spellings would be two people."""
    field = User._meta.get_field("email")
    for convert in (field.get_prep_value, field.to_python):
        assert convert("Boss@Corp.Example") == "boss@corp.example"


@pytest.mark.parametrize(
    ("name", "folded"),
    [("Bob", "bob"), ("ＢＯＢ", "bob"), ("Straße", "strasse"), ("É", "é"), ("", "")],
)
def test_a_folded_name_has_no_case_and_no_width(name: str, folded: str) -> None:
    assert fold_name(name) == folded


LOOK_ALIKES = [
    ("bob", "BOB"),
    ("BOB", "bob"),
    ("bob", "Ｂob"),
    ("émile", "ÉMILE"),
    ("STRASSE", "straße"),
    ("김", "김"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
]
"""(existing name, refused name)"""


@pytest.mark.parametrize(("existing", "name"), LOOK_ALIKES)
def test_a_new_name_differs_from_all_others_in_more_than_case(
    existing: str, name: str
) -> None:
    person("annika"), person(existing)
    assert User.objects.all().look_alikes([name, "x"]) == {fold_name(name): existing}
    with pytest.raises(ValidationError, match=existing) as refused:
        User(username=name, password="!").full_clean()
    assert set(refused.value.message_dict) == {"username"}
    with pytest.raises(ValidationError):
        User.objects.create_superuser(name, "", None)
    User(username=f"{name}2", password="!").full_clean()


@pytest.mark.parametrize("column", ["is_active", "is_staff", "is_service_account"])
@pytest.mark.parametrize("value", [True, False])
def test_every_account_keeps_its_name_from_others(column: str, value: bool) -> None:
    """Also a closed one, which may be opened again."""
    person("bob", **{column: value})
    with pytest.raises(ValidationError, match="A user bob exists already"):
        User(username="BOB", password="!").full_clean()


def test_an_account_may_keep_its_name() -> None:
    """Also one that an older release let in; a new name is checked."""
    first, second = person("bob"), person("BOB")
    for user in (first, second):
        user.full_clean(exclude=["password"])
    second.username = "Bob"
    with pytest.raises(ValidationError):
        second.full_clean(exclude=["password"])


@pytest.mark.parametrize(
    ("name", "found"),
    [("bob", True), ("ｂｏｂ", True), ("BOB", False), ("b\x00ob", False), ("", False)],
)
def test_an_account_is_found_by_its_name(name: str, found: bool) -> None:
    """With wide characters, as an input method may send them; NUL finds nothing."""
    bob = person("bob")
    assert User.objects.all().named(name) == (bob if found else None)
    if found:
        assert User.objects.get_by_natural_key(name) == bob
        return
    with pytest.raises(User.DoesNotExist):
        User.objects.get_by_natural_key(name)


@pytest.mark.parametrize("name", [None, ""], ids=["none", "empty"])
def test_an_account_without_a_name_is_invalid(name: Any) -> None:
    """A form without a name gives None, which is no name that can be folded."""
    with pytest.raises(ValidationError) as refused:
        User(username=name, password="!").full_clean()
    assert "username" in refused.value.message_dict
