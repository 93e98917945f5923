"""The last role takes all access; that of staff only where a superuser takes it."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import IssuedToken, RoleAssignment, User
from accounts.models.audit.events import COMMAND_LINE
from accounts.tokens.issue import issue_tokens
from tests.support.users import make_user

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
        return make_user("carol", "Admin", admin=True)
    if name == "role manager":
        made = make_user("rosa", "Guest")
        made.is_staff = True
        made.save()
        return made
    return make_user("adm", "Admin") if name == "holder of Admin" else name


def holder(**columns: bool) -> RoleAssignment:
    """The one role of a new account that has tokens."""
    user = make_user("stella", "Guest")
    User.objects.filter(pk=user.pk).update(**columns)
    issue_tokens(user, issued_via="command")
    return RoleAssignment.objects.select_related("user").get(user=user)


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
