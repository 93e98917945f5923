"""Scopes, roles and assignments.

The last role takes all access; that of staff only where a superuser takes it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import override

from accounts.models import IssuedToken, Role, RoleAssignment, Scope, User
from accounts.models.audit.origins import COMMAND_LINE
from accounts.models.roles import scope_name_validator
from tests.support.model_rows import events_of, person, reload, session_row, token_row

pytestmark = pytest.mark.django_db
ACTORS = {
    "superuser": True,
    "role manager": False,
    "holder of Admin": False,
    "from provider corp": True,
    COMMAND_LINE: True,
    None: True,
}
"""Who takes the role -> whether the access of staff ends. Text is no account."""


def actor_called(name: Any) -> Any:
    if name == "superuser":
        return person("carol", is_superuser=True, is_staff=True)
    if name == "role manager":
        return person("rosa", is_staff=True)
    return with_role("adm", "Admin").user if name == "holder of Admin" else name


def with_role(username: str, name: str, **columns: Any) -> RoleAssignment:
    """The assignment of this role to a new account."""
    role = Role.objects.get(name=name)
    return RoleAssignment.objects.create(user=person(username), role=role, **columns)


def holder(**columns: bool) -> RoleAssignment:
    """The one role of a new account that has tokens."""
    user = person("stella", **columns)
    token_row(user)
    return RoleAssignment.objects.grant(user, Role.objects.get(name="Guest"))[0]


def has_access(held: RoleAssignment, epoch: int) -> bool:
    """Tokens live and browsers stay signed in: both, or neither."""
    live = IssuedToken.objects.filter(user=held.user).live().exists()
    same = User.objects.get(pk=held.user_id).session_epoch == epoch
    assert live == same
    return live


@pytest.mark.parametrize("way", ["withdraw", "end"])
@pytest.mark.parametrize("column", ["is_staff", "is_superuser"])
@pytest.mark.parametrize("actor", ACTORS)
def test_the_last_role_of_staff_takes_access_only_by_a_superuser(
    actor: Any, column: str, way: str
) -> None:
    """Revoking their tokens is refused to the same people."""
    held = holder(**{column: True})
    epoch = held.user.session_epoch
    getattr(held, way)(actor=actor_called(actor))
    assert not RoleAssignment.objects.filter(user=held.user).unexpired().exists()
    assert has_access(held, epoch) is not ACTORS[actor]


@pytest.mark.parametrize("way", ["withdraw", "end"])
@pytest.mark.parametrize("actor", ACTORS)
def test_the_last_role_of_others_takes_access(actor: Any, way: str) -> None:
    held = holder()
    epoch = held.user.session_epoch
    getattr(held, way)(actor=actor_called(actor))
    assert not has_access(held, epoch)


NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
TICK = timedelta(microseconds=1)
ENDS = {None: True, NOW - TICK: False, NOW: False, NOW + TICK: True}
"""End of an assignment -> whether it is valid at NOW."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock shows NOW."""
    monkeypatch.setattr(timezone, "now", lambda: NOW)


@pytest.mark.parametrize("way", ["withdraw", "end"])
def test_another_valid_role_keeps_access(way: str) -> None:
    held = holder()
    RoleAssignment.objects.grant(held.user, Role.objects.get(name="User"))
    assert getattr(held, way)(actor="carol") == 0
    assert has_access(held, held.user.session_epoch)


@pytest.mark.parametrize("way", ["withdraw", "end"])
def test_expired_roles_and_roles_of_others_do_not_keep_access(way: str) -> None:
    held = holder()
    user = Role.objects.get(name="User")
    RoleAssignment.objects.grant(held.user, user, expires_at=NOW - TICK)
    other = with_role("ann", "User")
    token_row(other.user)
    assert getattr(held, way)(actor="carol") == 1
    assert not has_access(held, 0) and has_access(other, 0)


@pytest.mark.parametrize(
    ("way", "said"), [("withdraw", "role withdrawn"), ("end", "role ended")]
)
@pytest.mark.parametrize("reason", [None, "left the team"])
def test_the_end_of_access_says_why(way: str, said: str, reason: str | None) -> None:
    held = holder()
    given = {"reason": reason} if reason else {}
    assert getattr(held, way)(actor="carol", **given) == 1
    (event,) = events_of("token.revoked")
    assert (event.actor, event.reason) == ("carol", reason or said)


@pytest.mark.parametrize("way", ["withdraw", "end"])
def test_the_request_that_ends_a_role_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    given: list[Any] = []

    def revoke_tokens(self: User, **options: Any) -> int:
        given.append(options["keep"])
        return 7

    monkeypatch.setattr(User, "revoke_tokens", revoke_tokens)
    assert getattr(holder(), way)(actor="carol", keep="request") == 7
    assert given == ["request"]


def test_an_ended_assignment_stays_in_the_list(stopped: None) -> None:
    held, other = with_role("ann", "User"), with_role("bea", "User")
    session_row(held.user, ends=NOW + TICK)
    held.end(actor="carol")
    reload(held, other)
    assert held.expires_at == NOW and other.expires_at is None
    assert [event.object for event in events_of("session.ended")] == ["ann"]


def test_a_withdrawn_assignment_is_deleted_alone() -> None:
    held, other = with_role("ann", "User"), with_role("bea", "User")
    held.withdraw(actor="carol")
    assert list(RoleAssignment.objects.all()) == [other]


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_an_assignment_is_valid_until_its_end(
    stopped: None, ends: datetime | None
) -> None:
    held = with_role("ann", "User", expires_at=ends)
    for moment in (None, NOW):
        valid = RoleAssignment.objects.all().unexpired(moment).exists()
        assert valid is ENDS[ends] is not held.expired


def test_validity_can_be_asked_for_another_time(stopped: None) -> None:
    with_role("ann", "User", expires_at=NOW + timedelta(days=1))
    rows = RoleAssignment.objects.all()
    assert rows.unexpired().exists()
    assert not rows.unexpired(NOW + timedelta(days=2)).exists()


LATER = NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("ends", "until", "lasts"),
    [
        (None, None, True),
        (None, LATER, True),
        (LATER, None, False),
        (LATER, LATER - TICK, True),
        (LATER, LATER, True),
        (LATER, LATER + TICK, False),
        (NOW, None, False),
        (NOW, NOW - TICK, False),
    ],
)
def test_an_assignment_lasts_until_a_moment(
    stopped: None, ends: datetime | None, until: datetime | None, lasts: bool
) -> None:
    assert RoleAssignment(expires_at=ends).lasts_until(until) is lasts


@pytest.mark.parametrize(
    ("ends", "extended"),
    [
        (None, None),
        (LATER, LATER + timedelta(days=2)),
        (NOW - timedelta(days=1), NOW + timedelta(days=2)),
    ],
)
def test_an_extension_begins_now_or_at_the_end(
    stopped: None, ends: datetime | None, extended: datetime | None
) -> None:
    held = with_role("ann", "User", expires_at=ends)
    held.extend(timedelta(days=2))
    held.refresh_from_db()
    assert held.expires_at == extended


def test_a_grant_records_who_why_and_until(stopped: None) -> None:
    ann, carol = person("ann"), person("carol")
    role = Role.objects.get(name="User")
    grant = RoleAssignment.objects.grant
    made, new = grant(ann, role, granted_by=carol, reason="work", expires_at=LATER)
    made.refresh_from_db()
    assert new and (made.user, made.role, made.granted_at) == (ann, role, NOW)
    assert (made.granted_by, made.reason, made.expires_at) == (carol, "work", LATER)
    assert str(made) == "ann has User"


def test_a_renewal_replaces_everything_but_the_row() -> None:
    ann, carol = person("ann"), person("carol")
    user, guest = Role.objects.get(name="User"), Role.objects.get(name="Guest")
    grant = RoleAssignment.objects.grant
    first, _ = grant(ann, user, granted_by=carol, reason="work", expires_at=LATER)
    others = [grant(ann, guest, reason="a")[0], grant(carol, user, reason="b")[0]]
    RoleAssignment.objects.filter(pk=first.pk).update(granted_at=NOW)
    renewed, new = grant(ann, user)
    renewed.refresh_from_db()
    assert not new and renewed == first and renewed.granted_at > NOW
    assert (renewed.granted_by, renewed.reason, renewed.expires_at) == (None, "", None)
    for other, reason in zip(others, "ab", strict=True):
        other.refresh_from_db()
        assert other.reason == reason


def test_a_role_in_use_cannot_be_deleted() -> None:
    held = with_role("ann", "User")
    with pytest.raises(ProtectedError):
        held.role.delete()
    held.user.delete()
    assert Role.objects.filter(name="User").exists()


def test_an_assignment_outlives_the_account_of_its_granter() -> None:
    carol = person("carol")
    held = with_role("ann", "User", granted_by=carol)
    carol.delete()
    held.refresh_from_db()
    assert held.granted_by is None


def test_scopes_are_described_in_the_given_order() -> None:
    Scope.objects.create(name="tool:x")
    found = Scope.objects.descriptions(["unknown", "User.Read", "tool:x", "mcp"])
    assert list(found.items()) == [
        ("unknown", "unknown"),
        ("User.Read", "Read data."),
        ("tool:x", "Use the tool x."),
        ("mcp", "Use the tools that your roles allow."),
    ]


def test_descriptions_of_scopes_are_translated() -> None:
    with override("ko"):
        found = Scope.objects.descriptions(["User.Read"])["User.Read"]
    assert found != "Read data." and not found.isascii()


def test_lists_are_sorted_by_name() -> None:
    assert [str(role) for role in Role.objects.all()] == ["Admin", "Guest", "User"]
    names = [str(scope) for scope in Scope.objects.all()]
    assert names == sorted(names) and "mcp" in names
    ann = person("ann")
    for name in ("User", "Admin", "Guest"):
        RoleAssignment.objects.grant(ann, Role.objects.get(name=name))
    held = [row.role.name for row in RoleAssignment.objects.filter(user=ann)]
    assert held == ["Admin", "Guest", "User"]


VISIBLE = {chr(code) for code in range(0x21, 0x7F)} - set('"\\')
"""RFC 6749 3.3: NQCHAR."""


def test_the_characters_of_a_scope_are_those_of_oauth() -> None:
    for char in map(chr, range(0x100)):
        names = (f"a{char}b", f"a{char}", f"{char}a")
        assert [valid_scope(name) for name in names] == [char in VISIBLE] * 3, char


def valid_scope(name: str) -> bool:
    try:
        scope_name_validator(name)
    except ValidationError:
        return False
    return True


def test_a_scope_has_a_character() -> None:
    assert valid_scope("resource:a://{b}") and not valid_scope("")
