"""What replaces a shared scope when one role loses a primitive that it covers.

The primitive no longer requires the scope. Every other role that covers the primitive
through it gets the primitive's own scope, so that nobody else loses access.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from accounts.models import Role, RoleAssignment, User
from mcp_bridge.access.matrix.cells import Matrix, MatrixChange
from mcp_bridge.models import Primitive


@dataclass
class MatrixOutcome:
    """What the changes of one primitive lead to."""

    primitive: Primitive
    required: frozenset[str]
    """Names of the scopes that it requires now."""
    dropped: frozenset[str] = frozenset()
    """Shared scopes that it stops requiring."""
    keepers: list[Role] = field(default_factory=list)
    """Roles that get its own scope instead of a dropped one."""
    before: frozenset[int] = frozenset()
    """Roles that cover it now, and afterwards."""
    after: frozenset[int] = frozenset()
    gaining: int = 0
    """Active users who can use it afterwards and could not before."""
    losing: int = 0

    @property
    def requires_own(self) -> bool:
        """Whether its own scope has to become a required one."""
        return bool(self.keepers) and self.primitive.own_scope not in self.required

    @property
    def required_after(self) -> frozenset[str]:
        own = {self.primitive.own_scope} if self.requires_own else frozenset()
        return (self.required - self.dropped) | own


def outcomes(matrix: Matrix, changes: Iterable[MatrixChange]) -> list[MatrixOutcome]:
    """What the changes lead to, for each primitive that they concern."""
    by_primitive: dict[int, list[MatrixChange]] = {}
    for change in changes:
        by_primitive.setdefault(change.primitive.pk, []).append(change)
    roles = {role.pk: role for role in Role.objects.all()}
    return [outcome(matrix, mine, roles) for mine in by_primitive.values()]


def outcome(
    matrix: Matrix, changes: list[MatrixChange], roles: dict[int, Role]
) -> MatrixOutcome:
    """What the changes of one primitive lead to, without the numbers of users."""
    primitive = changes[0].primitive
    own, required = primitive.own_scope, matrix.required.get(primitive.pk, frozenset())
    given = {change.role.pk for change in changes if change.give}
    taken = {change.role.pk for change in changes if not change.give}
    dropped = frozenset(s for c in changes if not c.give for s in c.through)
    granted = {pk: matrix.granted.get(pk, frozenset()) for pk in roles}
    before = frozenset(pk for pk in roles if granted[pk] & required)
    for pk in given:
        granted[pk] = granted[pk] | {own}
    for pk in taken:
        granted[pk] = granted[pk] - {own}
    left = required - dropped
    keep = [pk for pk in before - taken if not granted[pk] & left]
    found = MatrixOutcome(
        primitive, required, dropped, [roles[pk] for pk in sorted(keep)], before
    )
    for pk in keep:
        granted[pk] = granted[pk] | {own}
    wanted = found.required_after
    found.after = frozenset(pk for pk in roles if granted[pk] & wanted)
    return found


def count_users(found: Iterable[MatrixOutcome]) -> None:
    """Set the numbers of users that gain or lose; equal sets of roles count once."""
    known: dict[tuple[frozenset[int], frozenset[int]], int] = {}

    def count(having: frozenset[int], lacking: frozenset[int]) -> int:
        key = having - lacking, lacking
        if key not in known:
            known[key] = users_with(*key) if key[0] else 0
        return known[key]

    for one in found:
        one.gaining = count(one.after, one.before)
        one.losing = count(one.before, one.after)


def users_with(roles: frozenset[int], without: frozenset[int]) -> int:
    """Active users who have one of `roles` and none of `without` at this moment."""
    current = RoleAssignment.objects.unexpired().order_by()
    having = current.filter(role__in=roles).values("user_id")
    lacking = current.filter(role__in=without).values("user_id")
    users = User.objects.filter(is_active=True, pk__in=having)
    if without:
        users = users.exclude(pk__in=lacking)
    return int(users.count())
