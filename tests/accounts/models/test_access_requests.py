"""Requests for roles: who may ask, and what a decision writes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AccessRequest, Role, RoleAssignment, User
from accounts.models.access_requests import RequestNotPossible, RequestState
from tests.support.model_rows import past, person, reload, soon

pytestmark = pytest.mark.django_db
grant = RoleAssignment.objects.grant


@pytest.fixture
def ann() -> User:
    return person("ann")


@pytest.fixture
def carol() -> User:
    return person("carol")


@pytest.fixture
def role() -> Role:
    return Role.objects.get(name="User")


def ask(user: User, role: Role, until: datetime | None = None) -> AccessRequest:
    return AccessRequest.objects.all().ask(user, role, reason="for work", until=until)


def assignment(user: User, role: Role) -> RoleAssignment | None:
    return RoleAssignment.objects.filter(user=user, role=role).first()


def test_a_request_waits_for_a_decision(ann: User, role: Role) -> None:
    until = soon()
    made = ask(ann, role, until)
    made.refresh_from_db()
    assert (made.user, made.role, made.reason, made.until) == (
        ann,
        role,
        "for work",
        until,
    )
    assert made.state == "open" and made.decided_at is None
    assert str(made) == "ann requests User" and assignment(ann, role) is None


@pytest.mark.parametrize("state", RequestState)
def test_only_undecided_requests_are_open(
    ann: User, role: Role, state: RequestState
) -> None:
    AccessRequest.objects.create(user=ann, role=role, reason="x", state=state)
    assert AccessRequest.objects.all().open().exists() is (state == "open")


def test_a_role_without_an_end_cannot_be_requested(ann: User, role: Role) -> None:
    grant(ann, role)
    with pytest.raises(RequestNotPossible, match="already have User with no end date"):
        ask(ann, role)
    assert not AccessRequest.objects.exists()


@pytest.mark.parametrize("end", [past, soon])
def test_a_role_with_an_end_can_be_requested(ann: User, role: Role, end: Any) -> None:
    grant(ann, role, expires_at=end())
    assert ask(ann, role).state == "open"


def test_roles_of_others_and_other_roles_do_not_matter(
    ann: User, carol: User, role: Role
) -> None:
    grant(carol, role), grant(ann, Role.objects.get(name="Guest"))
    assert ask(ann, role).user == ann


def test_a_second_open_request_is_refused(ann: User, carol: User, role: Role) -> None:
    ask(ann, role)
    with pytest.raises(RequestNotPossible, match="already requested User"):
        ask(ann, role)
    # The failed insert must not break the caller's transaction.
    assert AccessRequest.objects.count() == 1
    ask(carol, role), ask(ann, Role.objects.get(name="Guest"))


@pytest.mark.parametrize("end", ["decline", "withdraw"])
def test_a_decided_request_can_be_repeated(
    ann: User, carol: User, role: Role, end: str
) -> None:
    made = ask(ann, role)
    made.decline(actor=carol) if end == "decline" else made.withdraw()
    assert ask(ann, role).state == "open"


@pytest.mark.parametrize("until", [None, soon()])
def test_an_approval_grants_the_role(
    ann: User, carol: User, role: Role, until: datetime | None
) -> None:
    """The end is the approver's, not the requested one."""
    made = ask(ann, role, until=soon() + timedelta(days=9))
    granted, new = made.approve(actor=carol, until=until, answer="welcome")
    assert new and granted == assignment(ann, role)
    assert (granted.granted_by, granted.reason) == (carol, "for work")
    assert granted.expires_at == until
    stored = AccessRequest.objects.get()
    assert (stored.state, stored.answer, stored.decided_by) == (
        "approved",
        "welcome",
        carol,
    )
    assert (made.state, made.answer, made.decided_by) == ("approved", "welcome", carol)
    assert stored.given_until == made.given_until == until
    assert stored.decided_at is not None and made.decided_at == stored.decided_at
    assert abs(stored.decided_at - timezone.now()) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("held", "until", "extends"),
    [(1, 2, True), (2, 2, False), (3, 2, False), (1, None, True), (None, 2, False)],
)
def test_an_approval_changes_only_a_shorter_assignment(
    ann: User,
    carol: User,
    role: Role,
    held: int | None,
    until: int | None,
    extends: bool,
) -> None:
    """A sign-in provider finds its assignments by their reason."""
    now = timezone.now()
    ends = [now + timedelta(days=n) if n else None for n in (held, until)]
    made = ask(ann, role)
    grant(ann, role, reason="from provider corp", expires_at=ends[0])
    found, extended = made.approve(actor=carol, until=ends[1])
    assert extended is extends
    assert found.reason == ("for work" if extends else "from provider corp")
    expected = ends[1] if extends else ends[0]
    found.refresh_from_db()
    assert found.expires_at == made.given_until == expected
    assert AccessRequest.objects.get().given_until == expected
    assert RoleAssignment.objects.filter(user=ann).count() == 1


def test_an_approval_leaves_other_assignments_alone(
    ann: User, carol: User, role: Role
) -> None:
    """Longer assignments of another user and of another role are no reason."""
    guest = Role.objects.get(name="Guest")
    hers, mine = grant(carol, role)[0], grant(ann, guest)[0]
    until = soon()
    found, new = ask(ann, role).approve(actor=carol, until=until)
    assert new and found.expires_at == until
    reload(hers, mine)
    assert hers.expires_at is None and mine.expires_at is None


def test_a_refusal_and_a_withdrawal_grant_nothing(
    ann: User, carol: User, role: Role
) -> None:
    refused, withdrawn = ask(ann, role), ask(carol, role)
    refused.decline(actor=carol, answer="no")
    withdrawn.withdraw()
    reload(refused, withdrawn)
    assert (refused.state, refused.decided_by, refused.answer) == (
        "declined",
        carol,
        "no",
    )
    assert (withdrawn.state, withdrawn.decided_by) == ("withdrawn", None)
    assert refused.decided_at and withdrawn.decided_at
    assert not RoleAssignment.objects.filter(user__in=[ann, carol]).exists()


@pytest.mark.parametrize("first", ["approve", "decline", "withdraw"])
@pytest.mark.parametrize("second", ["approve", "decline", "withdraw"])
def test_a_request_is_decided_once(
    ann: User, carol: User, role: Role, first: str, second: str
) -> None:
    """The second decider has an object from before the first decision."""
    options: dict[str, dict[str, Any]] = {
        "approve": {"actor": carol, "until": None},
        "decline": {"actor": carol},
        "withdraw": {},
    }
    made = ask(ann, role)
    stale = AccessRequest.objects.get(pk=made.pk)
    getattr(made, first)(**options[first])
    before = AccessRequest.objects.filter(pk=made.pk).values().get()
    with pytest.raises(RequestNotPossible, match="ann requests User: already decided"):
        getattr(stale, second)(**options[second])
    assert AccessRequest.objects.filter(pk=made.pk).values().get() == before
    assert (assignment(ann, role) is not None) is (first == "approve")


def test_one_decision_leaves_other_requests_open(
    ann: User, carol: User, role: Role
) -> None:
    made, other = ask(ann, role), ask(carol, role)
    made.decline(actor=carol)
    assert list(AccessRequest.objects.all().open()) == [other]


def test_a_failed_grant_leaves_the_request_open(
    ann: User, carol: User, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ask(ann, role)
    queryset = type(RoleAssignment.objects.all())
    monkeypatch.setattr(queryset, "update_or_create", None)
    with pytest.raises(TypeError):
        made.approve(actor=carol, until=None)
    assert AccessRequest.objects.get().state == "open"


def test_the_newest_request_is_listed_first(ann: User, role: Role) -> None:
    at = timezone.now()
    names = ("Guest", "Admin", "User")
    rows = [
        AccessRequest.objects.create(
            user=ann, role=Role.objects.get(name=name), reason="x", asked_at=at
        )
        for name in names
    ]
    AccessRequest.objects.filter(pk=rows[0].pk).update(asked_at=soon())
    assert list(AccessRequest.objects.all()) == [rows[0], rows[2], rows[1]]
