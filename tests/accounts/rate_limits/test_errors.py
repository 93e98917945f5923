"""RateLimited as a page for browsers and as JSON for programs (RFC 6585 4)."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from accounts.rate_limits.errors import (
    RateLimited,
    RateLimitedResponseMiddleware,
    RateLimitUnavailable,
    lockout_text,
    rate_limited_response,
)
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def plain(settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED


def answer_to(problem: RateLimited, accept: str = "*/*") -> Any:
    request = RequestFactory().get("/device", headers={"accept": accept})
    return rate_limited_response(request, problem)


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0, 1), (-5, 1), (1, 1), (1.01, 2), (59.5, 60), (900, 900)]
)
def test_the_wait_is_whole_seconds_and_at_least_one(wait: float, seconds: int) -> None:
    problem = RateLimited("later", wait)
    assert problem.wait == seconds
    assert answer_to(problem)["Retry-After"] == str(seconds)


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        (RateLimited, 429, "too_many_requests"),
        (RateLimitUnavailable, 503, "temporarily_unavailable"),
    ],
)
def test_programs_get_json(kind: type[RateLimited], status: int, error: str) -> None:
    """No cache may store it."""
    answer = answer_to(kind("Later, please.", 3))
    assert (answer.status_code, answer["Cache-Control"]) == (status, "no-store")
    expected = f'{{"error": "{error}", "error_description": "Later, please."}}'
    assert answer.content.decode() == expected


@pytest.mark.parametrize(("wait", "text"), [(60, "1 minute."), (61, "2 minutes.")])
def test_browsers_get_a_page_with_minutes(wait: int, text: str) -> None:
    answer = answer_to(RateLimited("<Later>", wait), "text/html,*/*")
    page = answer.content.decode()
    assert answer.status_code == 429 and "&lt;Later&gt;" in page
    assert f"Try again in {text}" in page and "<Later>" not in page
    assert answer["Cache-Control"] == "no-store"
    assert answer["Retry-After"] == str(wait)


@pytest.mark.parametrize(("reader", "text"), [("ko", "요청"), ("en", "Too many")])
def test_the_page_is_in_the_readers_language(reader: str, text: str) -> None:
    """Also at an endpoint of programs, where the exception was raised in English."""
    problem = RateLimited(
        gettext_lazy("Too many requests. Wait before you try again."), 1
    )
    headers = {"accept": "text/html", "accept-language": reader}
    request = RequestFactory().post("/oauth/token", headers=headers)
    page = rate_limited_response(request, problem)
    assert text in page.content.decode() and f'lang="{reader}"' in page.content.decode()
    headers["accept"] = "*/*"
    request = RequestFactory().post("/oauth/token", headers=headers)
    assert (
        "Too many requests" in rate_limited_response(request, problem).content.decode()
    )


def test_every_text_of_ours_is_lazy() -> None:
    assert isinstance(lockout_text(), Promise)


def test_only_this_exception_becomes_a_response() -> None:
    served = HttpResponse()
    middleware = RateLimitedResponseMiddleware(lambda request: served)
    request = RequestFactory().get("/")
    assert middleware(request) is served
    assert middleware.process_exception(request, ValueError()) is None
    answer = middleware.process_exception(request, RateLimited("later", 5))
    assert answer is not None and answer.status_code == 429


def test_the_text_of_a_lock_out_names_no_account() -> None:
    assert lockout_text().startswith("Too many failed sign-ins.")
