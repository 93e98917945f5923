"""Error responses by kind of error and kind of client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import (
    DisallowedHost,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
)
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    transaction,
)
from django.http import Http404, HttpResponse
from django.test import Client, override_settings
from django.utils import translation
from django.utils.translation import gettext

from accounts.admin_site.declared_lookups import LookupRefused
from accounts.crypto.encryption import KeyUnreadable
from accounts.http.responses import error_body
from accounts.models import Role, Scope
from config.views.errors import (
    REFUSED,
    TEMPORARY,
    bad_request,
    classify_error,
    forbidden,
    not_found,
    server_error,
)
from mcp_bridge.http.request_id import request_id
from tests.support.static_files import UNCOLLECTED
from tests.support.users import account, browser_of

pytestmark = pytest.mark.django_db


def database_error(kind: str) -> None:
    """An error of the database, raised by the database itself where possible."""
    if kind == "same row":
        Role.objects.bulk_create([Role(name="Twice"), Role(name="Twice")])
    if kind == "no value":
        Scope.objects.create(name=None)  # type: ignore[misc]
    raise OperationalError("away")


@override_settings(STORAGES=UNCOLLECTED)
def response_to(rf: Any, kind: str, accept: str) -> HttpResponse:
    """The response of Django's handler500."""
    try:
        with transaction.atomic():
            database_error(kind)
    except (IntegrityError, OperationalError):
        return server_error(rf.get("/admin/", headers={"accept": accept}))
    raise AssertionError("nothing broke")


@pytest.mark.parametrize(
    ("kind", "status", "error", "words"),
    [
        ("same row", 409, "conflict", "Conflicting change"),
        ("no value", 500, "server_error", "Something went wrong"),
        ("away", 503, "temporarily_unavailable", "Temporarily unavailable"),
    ],
)
def test_errors_are_answered_by_their_kind(
    rf: Any, kind: str, status: int, error: str, words: str
) -> None:
    """Programs get JSON, people a page; an error in Portico stays a 500."""
    response = response_to(rf, kind, "*/*")
    assert (
        response.status_code == status
        and json.loads(response.content)["error"] == error
    )
    page = response_to(rf, kind, "text/html,application/xhtml+xml")
    assert page.status_code == status and words in page.content.decode()
    assert ("Retry-After" in page) == (status == 503)


@pytest.mark.parametrize("kind", TEMPORARY, ids=lambda kind: kind.__name__)
def test_what_a_retry_resolves_is_503(rf: Any, kind: type[Exception]) -> None:
    assert classify_error(kind("x")) == (
        503,
        ("temporarily_unavailable", TEMPORARY[kind]),
    )
    try:
        raise kind("x")
    except kind:
        response = server_error(rf.get("/"))
    assert response["Retry-After"] == "5" and response["Cache-Control"] == "no-store"


def integrity_error(**fields: str) -> IntegrityError:
    error = IntegrityError("x")
    error.__cause__ = type("Cause", (Exception,), fields)()
    return error


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *(({"sqlstate": state}, 409) for state in ("23503", "23505")),
        *(
            ({"sqlite_errorname": f"SQLITE_CONSTRAINT_{kind}"}, 409)
            for kind in ("FOREIGNKEY", "PRIMARYKEY", "UNIQUE")
        ),
        ({"sqlstate": "23502"}, 500),
        ({"sqlite_errorname": "SQLITE_CONSTRAINT_NOTNULL"}, 500),
        ({}, 500),
    ],
)
def test_only_concurrent_changes_are_conflicts(
    fields: dict[str, str], status: int
) -> None:
    assert classify_error(integrity_error(**fields))[0] == status


def test_only_an_integrity_error_is_a_conflict() -> None:
    error = ValueError("x")
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": "23505"})()
    assert classify_error(error)[0] == 500
    assert classify_error(IntegrityError("x"))[0] == 500


@pytest.mark.parametrize(
    "error",
    [
        DataError("x"),
        OverflowError("x"),
        ValueError("Exceeds the limit (4300 digits) for integer string conversion"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_value_that_fits_no_column_is_400(error: Exception) -> None:
    text = "A value is too large or has odd characters."
    assert classify_error(error) == (400, ("invalid_request", text))


def test_without_an_exception_it_is_500(rf: Any) -> None:
    response = server_error(rf.get("/"))
    assert response.status_code == 500 and "Retry-After" not in response
    assert json.loads(response.content) == {
        "error": "server_error",
        "error_description": "Something broke; it is in the server's log.",
    }


@override_settings(STORAGES=UNCOLLECTED)
def test_the_page_names_the_request(rf: Any) -> None:
    """An operator finds the log lines by it."""
    token = request_id.set("id-77")
    try:
        response = server_error(rf.get("/", headers={"accept": "text/html"}))
    finally:
        request_id.reset(token)
    assert "id-77" in response.content.decode()


def test_an_unknown_path_of_the_api_is_a_problem_for_browsers_too(rf: Any) -> None:
    """RFC 9457; other paths have a page."""
    request = rf.get("/api/v1/nothing", headers={"accept": "text/html"})
    response = not_found(request, Http404("x"))
    assert response.status_code == 404
    assert response["Content-Type"] == "application/problem+json"
    assert "/api/docs/" in json.loads(response.content)["detail"]


READERS = [
    ({"accept-language": "ko"}, "", "ko"),
    ({"accept-language": "ko"}, "en", "en"),
    ({}, "", "en"),
]


@pytest.mark.parametrize(("headers", "cookie", "language"), READERS, ids=str)
@pytest.mark.parametrize("status", [403, 404, 409, 500, 503])
@override_settings(STORAGES=UNCOLLECTED)
def test_error_pages_are_in_the_readers_language(
    rf: Any, status: int, headers: dict[str, str], cookie: str, language: str
) -> None:
    """RFC 9110 12.5.4; also at paths of programs, where the active one is English."""
    request = rf.get("/api/x", headers={"accept": "text/html", **headers})
    if cookie:
        request.COOKIES["portico_language"] = cookie
    raised: dict[int, Exception] = {
        409: integrity_error(sqlstate="23505"),
        503: OperationalError("away"),
    }
    try:
        raise raised.get(status, RuntimeError("x"))
    except Exception as error:
        views = {403: forbidden, 404: not_found}
        view = views.get(status)
        page = view(request, error) if view else server_error(request)
    assert page.status_code == status and page["Content-Language"] == language
    assert {"Accept-Language", "Cookie"} <= set(page["Vary"].split(", "))
    text = page.content.decode()
    assert f'<html lang="{language}">' in text
    with translation.override(language):
        title = gettext(TITLES[status])
    assert f"<h1>{title}</h1>" in text and (title == TITLES[status]) == (
        language == "en"
    )


TITLES = {
    403: "You do not have access to this page",
    404: "Page not found",
    409: "Conflicting change",
    500: "Something went wrong",
    503: "Temporarily unavailable",
}


@override_settings(STORAGES=UNCOLLECTED)
def test_an_unknown_path_gets_the_page() -> None:
    """Django calls our handler."""
    for language, word in (("ko", "페이지"), ("en", "Page not found")):
        page = Client().get("/nowhere", headers={"accept-language": language})
        assert page.status_code == 404 and word in page.content.decode()


def test_the_known_exceptions_are_these() -> None:
    """The tests below read the tables, so they would not miss a row."""
    assert set(REFUSED) == {RequestDataTooBig, TooManyFieldsSent, DisallowedHost}
    assert set(TEMPORARY) == {
        OperationalError,
        InterfaceError,
        InternalError,
        KeyUnreadable,
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [
        *((k, text) for k, text in REFUSED.items() if k is not RequestDataTooBig),
        (SuspiciousOperation, "The request is malformed."),
    ],
)
def test_what_django_refuses_is_400(rf: Any, error: type[Exception], text: str) -> None:
    """RFC 6749 5.2."""
    for accept in ("*/*", "application/json"):
        response = bad_request(rf.get("/", headers={"accept": accept}), error("x"))
        assert response.status_code == 400 and response["Cache-Control"] == "no-store"
        body = error_body("invalid_request", text)
        assert json.loads(response.content) == body
        assert ("error_uri" in body) is (error is DisallowedHost)


@override_settings(STORAGES=UNCOLLECTED, ISSUER_URL="https://portico.example")
@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("Unknown host name", "Open https://portico.example instead")),
        ("ko", ("알 수 없는 호스트 이름", "https://portico.example")),
    ],
)
def test_an_unknown_host_name_gets_a_page(language: str, words: tuple[str]) -> None:
    """Through the whole stack, whose middleware asks for the host, too."""
    headers = {"host": "old.example:81", "accept": "text/html"}
    browser = Client(headers={**headers, "accept-language": language})
    page = browser.get("/portal/")
    text = page.content.decode()
    assert page.status_code == 400 and page["Cache-Control"] == "no-store"
    for word in (*words, "old.example:81", "a-host-is-not-allowed"):
        assert word in text
    assert "correct it" not in text


@override_settings(STORAGES=UNCOLLECTED)
def test_a_malformed_request_gets_a_page(rf: Any) -> None:
    request = rf.get("/", headers={"accept": "text/html"})
    page = bad_request(request, SuspiciousOperation("x"))
    assert page.status_code == 400 and "correct it" in page.content.decode()


@override_settings(STORAGES=UNCOLLECTED)
def test_a_form_with_too_many_fields_gets_a_page(rf: Any) -> None:
    request = rf.post("/admin/", headers={"accept": "text/html"})
    page = bad_request(request, TooManyFieldsSent("x"))
    text = page.content.decode()
    assert page.status_code == 400 and "select fewer rows" in text


@override_settings(STORAGES=UNCOLLECTED, DATA_UPLOAD_MAX_MEMORY_SIZE=3 * 1024 * 1024)
def test_too_much_data_is_413(rf: Any) -> None:
    """RFC 9110 15.5.14."""
    request = rf.get("/admin/", headers={"accept": "application/json"})
    response = bad_request(request, RequestDataTooBig("x"))
    assert response.status_code == 413
    assert json.loads(response.content)["error"] == "invalid_request"
    request = rf.get("/admin/", headers={"accept": "text/html"})
    page = bad_request(request, RequestDataTooBig("x"))
    assert page.status_code == 413 and "larger than 3.0" in page.content.decode()


def test_a_refused_lookup_is_explained(rf: Any) -> None:
    response = bad_request(rf.get("/admin/x/"), LookupRefused("a__b"))
    assert "cannot be filtered by 'a__b'" in response.content.decode()


@pytest.mark.parametrize(
    ("path", "form", "target"),
    [
        ("/accounts/login/?next=/oauth/authorize%3Fa=b", {}, "/oauth/authorize?a=b"),
        ("/accounts/login/", {"next": "/device"}, "/device"),
        ("/accounts/login/", {}, ""),
        ("/accounts/oidc/corp/login/?next=/portal/", {}, "/portal/"),
        ("/accounts/2fa/authenticate/", {}, ""),
    ],
)
@override_settings(STORAGES=UNCOLLECTED)
def test_a_sign_in_form_of_another_tab_continues(
    path: str, form: dict[str, str], target: str
) -> None:
    """A sign-in changes the CSRF token; the user is where they wanted to be."""
    browser = browser_of(account("alice"), enforce_csrf_checks=True)
    browser.get("/accounts/reauthenticate/")
    sent = {"login": "x", "password": "y", "csrfmiddlewaretoken": "a" * 64, **form}
    answer = browser.post(path, sent)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")
    followed = browser.get(answer["Location"])
    assert (followed.status_code, followed["Location"]) == (
        302,
        target or settings.LOGIN_REDIRECT_URL,
    )


@pytest.mark.parametrize("path", ["/accounts/login/", "/oauth/authorize", "/device"])
@override_settings(STORAGES=UNCOLLECTED)
def test_other_forms_without_a_valid_token_are_403(path: str) -> None:
    stranger = Client(enforce_csrf_checks=True)
    assert stranger.post(path, {"next": "/portal/"}).status_code == 403
    if path != "/accounts/login/":
        browser = browser_of(account("alice"), enforce_csrf_checks=True)
        assert browser.post(path, {"next": "/portal/"}).status_code == 403


@override_settings(STORAGES=UNCOLLECTED)
def test_a_foreign_target_is_not_followed() -> None:
    browser = browser_of(account("alice"), enforce_csrf_checks=True)
    answer = browser.post("/accounts/login/", {"next": "https://evil.example/"})
    followed = browser.get(answer["Location"])
    assert followed["Location"] == settings.LOGIN_REDIRECT_URL


@pytest.mark.parametrize("host", ["p.example", "p.example:8443"])
@override_settings(STORAGES=UNCOLLECTED)
def test_forms_work_if_a_proxy_drops_the_port(host: str) -> None:
    """The browser's Origin has the port of ISSUER_URL; another origin is refused."""
    issuer = "https://p.example:8443"
    with override_settings(CSRF_TRUSTED_ORIGINS=[issuer], ALLOWED_HOSTS=["p.example"]):
        browser = Client(enforce_csrf_checks=True, headers={"host": host})
        page = browser.get("/accounts/login/", secure=True).content.decode()
        token = page.partition('name="csrfmiddlewaretoken" value="')[2][:64]
        form = {"login": "", "password": "", "csrfmiddlewaretoken": token}
        for origin, status in ((issuer, 200), ("https://p.example:1", 403)):
            sent = {"headers": {"origin": origin}, "secure": True}
            answer = browser.post("/accounts/login/", form, **sent)  # type: ignore[arg-type]
            assert answer.status_code == status
