"""Errors as a page for browsers and as JSON for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpResponseNotAllowed
from django.test import RequestFactory

from accounts.http.responses import (
    NotAllowedPageMiddleware,
    page_or_json,
    problem_body,
    problem_response,
)
from tests.support.static_files import UNCOLLECTED

pytestmark = pytest.mark.once


def answer_to(accept: str, **headers: str) -> Any:
    request = RequestFactory().get("/device", headers={"accept": accept})
    page = ("too_many.html", {"text": "<b>", "minutes": 2})
    return page_or_json(request, 418, page, ("teapot", "<b>"), **headers)


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/plain"])
def test_programs_get_json(accept: str) -> None:
    """RFC 6749 5.2."""
    answer = answer_to(accept)
    body = {"error": "teapot", "error_description": "<b>"}
    assert json.loads(answer.content) == body and answer.status_code == 418
    assert answer["Content-Type"] == "application/json"
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("status", "title"),
    [(400, "Bad Request"), (404, "Not Found"), (409, "Conflict"), (429, None)],
)
def test_a_problem_has_the_title_of_its_status(status: int, title: str | None) -> None:
    """RFC 9457 3.1 and 4.2.1."""
    body = problem_body(status, "Nobody explains this.", errors=["x"])
    assert body == {
        "type": "about:blank",
        "title": title or "Too Many Requests",
        "status": status,
        "detail": "Nobody explains this.",
        "errors": ["x"],
    }


def test_a_problem_is_no_page_and_is_not_stored() -> None:
    """RFC 9457 3; the same address may be there a moment later."""
    answer = problem_response(404, "Nobody explains this.", error="gone")
    body = problem_body(404, "Nobody explains this.", error="gone")
    assert (answer.status_code, json.loads(answer.content)) == (404, body)
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/json;q=0.9"])
def test_browsers_get_a_page(accept: str, settings: Any) -> None:
    settings.STORAGES = UNCOLLECTED
    answer = answer_to(accept, **{"Retry-After": "7"})
    assert answer.status_code == 418 and "&lt;b&gt;" in answer.content.decode()
    assert answer["Content-Type"].startswith("text/html")
    assert (answer["Cache-Control"], answer["Retry-After"]) == ("no-store", "7")


KNOWN = "This host is not in ALLOWED_HOSTS."


@pytest.mark.parametrize(
    ("shown", "error", "linked"),
    [(KNOWN, "x", True), ("", KNOWN, True), ("x", KNOWN, False), ("x", "x", False)],
)
def test_a_page_links_to_the_section_about_its_text(
    settings: Any, shown: str, error: str, linked: bool
) -> None:
    """About the text that people read; about that of programs without one."""
    settings.STORAGES = UNCOLLECTED
    request = RequestFactory().get("/device", headers={"accept": "text/html"})
    page = ("too_many.html", {"text": shown, "minutes": 2})
    answer = page_or_json(request, 429, page, ("x", error))
    assert ("/help/#a-host-is-not-allowed" in answer.content.decode()) is linked


def test_the_address_of_a_form_has_a_page_in_the_readers_language(
    settings: Any,
) -> None:
    """Also where programs get English."""
    settings.STORAGES = UNCOLLECTED
    headers = {"accept": "text/html", "accept-language": "ko"}
    request = RequestFactory().get("/oauth/token", headers=headers)
    refuse = NotAllowedPageMiddleware(lambda _request: HttpResponseNotAllowed(["POST"]))
    answer: Any = refuse(request)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert answer["Content-Language"] == "ko"
    assert "not a page" not in answer.content.decode()
