"""First steps of a new installation, shown on the overview until they are done.

Any app registers steps. A step says whether it is done from the rows, so it stays done
whoever did it, by whatever way.

@checklist_step(rank=20, permission="accounts.view_user")
def invite_somebody(request: HttpRequest) -> FirstStep: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.functional import Promise
from django.views import View

COOKIE = "portico_first_steps"
HIDDEN = "hidden"
YEAR = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One line: what to do, why, where, and whether it is done."""

    title: str | Promise
    why: str | Promise
    url: str
    done: bool


Finder = Callable[[HttpRequest], FirstStep]
_finders: list[tuple[int, str, Finder]] = []


def checklist_step(rank: int, permission: str) -> Callable[[Finder], Finder]:
    """Decorator: show this step to users with `permission`, low ranks first."""

    def register(finder: Finder) -> Finder:
        _finders.append((rank, permission, finder))
        return finder

    return register


def checklist(request: HttpRequest) -> list[FirstStep]:
    """The steps of this user; empty if all are done, or the user hid them."""
    if request.COOKIES.get(COOKIE) == HIDDEN:
        return []
    mine = sorted(
        (rank, number)
        for number, (rank, permission, _finder) in enumerate(_finders)
        if request.user.has_perm(permission)
    )
    steps = [_finders[number][2](request) for _rank, number in mine]
    return [] if all(step.done for step in steps) else steps


class HideChecklist(View):
    """POST: hide the steps in this browser."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        answer = redirect("admin:index")
        answer.set_cookie(
            COOKIE,
            HIDDEN,
            YEAR,
            path=reverse("admin:index"),
            httponly=True,
            secure=request.is_secure(),
            samesite="Lax",
        )
        return answer
