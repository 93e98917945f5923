"""Notices on the dashboard; any app registers finders.

@notice_finder("accounts.view_user")
def inactive_users() -> Iterator[Notice]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.http import HttpRequest
from django.utils.functional import Promise


@dataclass(frozen=True, slots=True)
class Notice:
    """One line: text, URL of the page to act on, and urgency."""

    text: str | Promise
    url: str = ""
    urgent: bool = False


Finder = Callable[[], Iterable[Notice]]
_finders: list[tuple[str, Finder]] = []
covered_checks: set[str] = set()
"""Ids of system checks that a finder replaces with a better link."""


def notice_finder(permission: str, instead_of: str = "") -> Callable[[Finder], Finder]:
    """Decorator: call this finder for users with `permission`.

    `instead_of` is the id of a system check with the same content.
    """

    def register(finder: Finder) -> Finder:
        _finders.append((permission, finder))
        covered_checks.add(instead_of)
        return finder

    return register


def notices(request: HttpRequest) -> list[Notice]:
    """All notices for this user, urgent ones first."""
    rows = [
        notice
        for permission, finder in _finders
        if request.user.has_perm(permission)
        for notice in finder()
    ]
    return sorted(rows, key=lambda notice: not notice.urgent)
