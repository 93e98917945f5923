"""Secrets sent to any page are in no table, no session and no log."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.urls import URLPattern, get_resolver

from tests.support.html_browser import Browser
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD, make_user

pytestmark = pytest.mark.once
NAMES = (
    "otp",
    "password",
    "oldpassword",
    "password1",
    "password2",
    "client_secret",
    "client_assertion",
    "assertion",
    "refresh",
    "refresh_token",
    "token",
    "code",
    "code_verifier",
    "device_code",
    "key",
)
"""Fields of forms, endpoints and links for secrets."""
SAMPLES = {"<slug:provider_id>": "corp", "<int:pk>": "1", "<str:key>": "some-key"}
KEYED = "accounts/password/reset/key/"
LEFT_OUT = ("admin/", "accounts/logout/")
API = "/api/v1/"
"""One class reads the token for all of it, before any body, and no cookie."""
ONE_OF_API = "/api/v1/people/"
LAST = "/portal/last-of-all"
REGISTRATION = "registration-token-of-this-test"


@pytest.fixture(scope="module")
def debug_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server at DEBUG, with a span for every request."""
    settings = {"LOG_LEVEL": "DEBUG", "OTEL_TRACES_EXPORTER": "console"}
    settings |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "CLIENT_REGISTRATION": "token"}
    AccessAttempt.objects.all().delete()
    with running_server(folder, REGISTRATION_TOKEN=REGISTRATION, **settings) as running:
        yield running
    AccessAttempt.objects.all().delete()


@pytest.fixture(scope="module")
def marks() -> dict[str, str]:
    """A unique secret for each name."""
    return {name: f"mark{secrets.token_hex(12)}" for name in NAMES}


def paths(marks: dict[str, str], resolver: Any = None, before: str = "") -> list[str]:
    """Every page outside the admin, with a value for each part."""
    found = []
    for entry in (resolver or get_resolver()).url_patterns:
        route = before + str(entry.pattern).removeprefix("^")
        if route.startswith(LEFT_OUT):
            continue
        if not isinstance(entry, URLPattern):
            found += paths(marks, entry, route)
        elif route.startswith(KEYED + "("):
            found.append(f"/{KEYED}1-{marks['key']}/")
        else:
            for part, sample in SAMPLES.items():
                route = route.replace(part, sample)
            found.append(f"/{route}")
    return found


def send(http: httpx2.Client, path: str, about: dict[str, str], csrf: str) -> None:
    """Send it as a form, as JSON, in the query, and in headers; never a 500."""
    form = {**about, "csrfmiddlewaretoken": csrf}
    headers = {"x-csrftoken": csrf, "referer": str(http.base_url)}
    basic = {"authorization": f"Basic {encoded(about)}"}
    bearer = {"authorization": f"Bearer {about['token']}"}
    post, grant = http.post, {"grant_type": "client_credentials"}
    answers = [
        post(path, data=form, headers=headers),
        post(path, json=about, headers=headers),
        post(path, params=about, headers=headers),
        post(path, data=grant, headers={**headers, **basic}),
        post(path, headers={**headers, **bearer}),
        http.get(path, params=about, headers=bearer),
        http.put(path, data=form, headers=headers),
    ]
    assert all(answer.status_code < 500 for answer in answers), (path, answers)


def encoded(about: dict[str, str]) -> str:
    """Id and secret of the client as RFC 7617 encodes them."""
    pair = f"{about['client_id']}:{about['client_secret']}"
    return base64.b64encode(pair.encode()).decode()


def stored_rows() -> Iterator[tuple[str, str]]:
    """Every row of every table as text, with the decoded sessions."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - from the schema
            for row in cursor.fetchall():
                yield table, repr(row)
    for session in Session.objects.all():
        yield "sessions", repr(session.get_decoded())


def registered(server: Portico) -> str:
    """The id of a client that registered with the registration token."""
    answer = httpx2.post(
        f"{server.url}/oauth/register",
        json={"redirect_uris": ["https://c.example/cb"], "client_name": "C"},
        headers={"authorization": f"Bearer {REGISTRATION}"},
        verify=False,
    )
    return str(answer.json()["client_id"])


def whole_log(server: Portico) -> str:
    """The server's log, with the spans of all earlier requests."""
    for _turn in range(100):
        httpx2.get(server.url + LAST, verify=False)
        log = server.log.read_text()
        if LAST in log:
            return log
        time.sleep(0.1)
    raise AssertionError("no span of the last request")


@pytest.fixture(scope="module")
def sent_secrets(debug_server: Portico, marks: dict[str, str]) -> dict[str, str]:
    """All secrets, sent to all pages by an anonymous and a signed-in user."""
    make_user("talker", "User")
    about = {"client_id": registered(debug_server), "grant_type": "authorization_code"}
    about |= {**marks, "username": "talker", "login": "talker"}
    with httpx2.Client(base_url=debug_server.url, timeout=60, verify=False) as outside:
        body = {"username": "talker", "password": PASSWORD}
        pair = outside.post("/api/token/", json=body).json()
        again = {"refresh": pair["refresh"]}
        renewed = outside.post("/api/token/refresh/", json=again).json()
        pages = [path for path in paths(marks) if not path.startswith(API)]
        for path in [*pages, ONE_OF_API, "/admin/login/", "/mcp"]:
            send(outside, path, about, "")
    with Browser(debug_server.url) as talker:
        talker.open("/accounts/login/?next=/portal/security/")
        talker.submit(talker.form("password"), login="talker", password=PASSWORD)
        talker.http.follow_redirects = False
        csrf = str(talker.http.cookies["csrftoken"])
        for path in [*pages, "/admin/password_change/"]:
            send(talker.http, path, about, csrf)
        cookie = str(talker.http.cookies[settings.SESSION_COOKIE_NAME])
    real = {"session": cookie, "access": pair["access"], "renewed": renewed["access"]}
    real |= {"first": pair["refresh"], "second": renewed["refresh"]}
    return {**marks, **real, "basic": encoded(about), "registration": REGISTRATION}


def test_no_table_and_no_session_stores_a_secret(sent_secrets: dict[str, str]) -> None:
    """A wrong password, code or token may be a valid one elsewhere."""
    rows = stored_rows()
    assert {
        (n, t) for t, text in rows for n, s in sent_secrets.items() if s in text
    } == set()


def test_no_log_and_no_trace_contains_a_secret(
    debug_server: Portico, sent_secrets: dict[str, str]
) -> None:
    """Also at DEBUG, and in the logs of libraries."""
    lines = whole_log(debug_server).splitlines()
    found = [
        line[:300] for line in lines if any(s in line for s in sent_secrets.values())
    ]
    assert not found, found[:8]
