"""A silent host delays only the requests that call it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.audit.record import record
from accounts.models import OAuthClient, SignInProvider, User
from accounts.oauth.token import GRANTS
from tests.apps.near_hosts.apps import SILENT_NAME
from tests.support.html_browser import Browser
from tests.support.mcp_client import mcp_client
from tests.support.oauth_client import authorize_url
from tests.support.oidc_provider import CLIENT_ID
from tests.support.server import Portico, running_server
from tests.support.silent_hosts import SilentHost, silent_host
from tests.support.users import PASSWORD, make_user

# wait_guard notices a transaction on any database; SQLite's lock stops all writers.
pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
HOLDS = 5.0
"""The most seconds that the server waits for another host."""
QUICK = 0.1
"""The most seconds that an event takes to commit meanwhile."""
LEAVING = ("logout", "language", "/static/")
WALTER = "walter@example.com"


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, SilentHost]]:
    """A document host, an identity provider and a mail server."""
    with silent_host() as documents, silent_host() as provider, silent_host() as mails:
        yield {"documents": documents, "provider": provider, "mails": mails}


@pytest.fixture(scope="module")
def isolated_server(
    rows: None, folder: Path, hosts: dict[str, SilentHost]
) -> Iterator[Portico]:
    """A server configured with only these three hosts."""
    settings = {
        "EXTRA_APPS": "tests.apps.near_hosts,tests.apps.shop,tests.apps.wait_guard",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(hosts["mails"].port),
        "EMAIL_TLS": "none",
    }
    row = SignInProvider(
        slug="silent",
        name="Silent",
        issuer=f"http://127.0.0.1:{hosts['provider'].port}",
        client_id=CLIENT_ID,
        sign_up=True,
    )
    row.set_secret("secret")
    row.save()
    with running_server(folder, **settings) as running:
        yield running
    row.delete()


def paths(patterns: list[URLPattern | URLResolver], before: str = "/") -> Iterator[str]:
    """Every path of the site, with a value for each argument."""
    for pattern in patterns:
        text = str(pattern.pattern)
        if text.startswith("^"):
            text = re.sub(r"\(\?P<\w+>.*?\)", "1", text.strip("^$")).replace("\\", "")
        text = text.replace("<slug:provider_id>", "silent")
        path = before + re.sub(r"<[^>]+>", "1", text)
        if isinstance(pattern, URLResolver):
            yield from paths(pattern.url_patterns, path)
        else:
            yield path


class HostRequests:
    """Sends every parameter that can name a host to one path after another."""

    def __init__(self, server: Portico, hosts: dict[str, SilentHost]) -> None:
        self.server, self.hosts = server, hosts
        self.numbers = count(2)
        self.asked: dict[str, str] = {}
        """Address of the document host -> the path that got its URL."""

    def document(self, path: str) -> str:
        """The URL of a client document, at a new address."""
        number = next(self.numbers)
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        self.asked[address] = path
        return f"https://{address}:{self.hosts['documents'].port}/client.json"

    def form(self, path: str, grant: str) -> dict[str, str]:
        words = ("token", "refresh_token", "code", "device_code", "user_code")
        return {
            **dict.fromkeys(words, "x"),
            "grant_type": grant,
            "client_id": self.document(path),
            "response_type": "code",
            "redirect_uri": "https://x.example/cb",
            "code_challenge": "x" * 43,
            "code_challenge_method": "S256",
            "scope": "mcp",
            "email": WALTER,
            "process": "login",
        }

    def ask(self, http: httpx2.Client, method: str, path: str, grant: str) -> float:
        """One request and its duration. Other tests check the response."""
        form = self.form(path, grant)
        headers = {"x-csrftoken": http.cookies.get("csrftoken") or ""}
        started = time.monotonic()
        body: dict[str, Any] = {"data": form} if method == "POST" else {}
        if method == "GET" or path == "/oauth/authorize":
            body["params"] = form
        answer = http.request(method, path, headers=headers, **body)
        assert answer.status_code != 500, f"{method} {path}: {answer.text[:500]}"
        return time.monotonic() - started

    def everything(self) -> list[tuple[str, str, str]]:
        """(method, path, grant type). Forms of the admin are left out: they change
        rows of other tests, and the guard covers them everywhere.
        """
        found = dict.fromkeys(paths(get_resolver().url_patterns))
        kept = [p for p in found if not any(word in p for word in LEAVING)]
        assert len(kept) > 150, "the paths were not found"
        posted = [path for path in kept if not path.startswith("/admin/")]
        requests = [("GET", path, GRANTS[0]) for path in kept]
        requests += [("POST", path, GRANTS[0]) for path in posted]
        return requests + [("POST", "/oauth/token", grant) for grant in GRANTS[1:]]


@pytest.fixture
def visitors(isolated_server: Portico) -> Iterator[list[httpx2.Client]]:
    """An anonymous and a fully permitted user, each with a CSRF token."""
    user = make_user("walter", "Admin", admin=True)
    User.objects.filter(pk=user.pk).update(email=WALTER)
    with Browser(isolated_server.url) as nobody, Browser(isolated_server.url) as walter:
        for browser in (nobody, walter):
            browser.open("/accounts/login/")
        walter.submit(walter.form("password"), login="walter", password=PASSWORD)
        for browser in (nobody, walter):
            browser.http.follow_redirects = False
        yield [nobody.http, walter.http]


def commit_seconds(jobs: list[Future[float]], server: Portico) -> list[float]:
    """How long commits and messages took while these jobs ran."""
    client, took = mcp_client(server, "alice"), []
    while not all(job.done() for job in jobs):
        started = time.monotonic()
        record("test.waited")
        took.append(time.monotonic() - started)
        answer = client.call("look")
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - started < HOLDS / 2, "a message waited"
        time.sleep(0.2)
    return took


@pytest.mark.spec("no call to another host inside a transaction")
def test_silent_hosts_delay_no_other_request(
    isolated_server: Portico,
    hosts: dict[str, SilentHost],
    visitors: list[httpx2.Client],
) -> None:
    """Requests every path; only a request that calls a host waits for it."""
    asker = HostRequests(isolated_server, hosts)
    with ThreadPoolExecutor(12) as pool:
        jobs = [
            pool.submit(asker.ask, http, *request)
            for request in asker.everything()
            for http in visitors
        ]
        took = sorted(commit_seconds(jobs, isolated_server))
    assert max(job.result() for job in jobs) < HOLDS + 3
    assert len(took) > 20 and took[-1] < HOLDS / 2, took[-5:]
    assert took[len(took) // 2] < QUICK
    reached = {asker.asked[a] for a in hosts["documents"].asked if a in asker.asked}
    assert reached == {"/oauth/authorize"}
    assert hosts["provider"].asked and hosts["mails"].asked


def test_slow_hosts_and_endless_names_hit_the_deadline(
    isolated_server: Portico, visitors: list[httpx2.Client]
) -> None:
    """One deadline covers more users than there are pooled connections."""
    walter = visitors[1]
    with (
        silent_host(b"\x16\x03\x03\x40\x00\x02") as drip,
        ThreadPoolExecutor(20) as pool,
    ):
        ids = [f"https://127.2.0.{n}:{drip.port}/c.json" for n in range(1, 20)]
        ids.append(f"https://{SILENT_NAME}/c.json")
        urls = [authorize_url(isolated_server, client_id)[0] for client_id in ids]
        jobs = [pool.submit(response_seconds, walter, url) for url in urls]
        took = sorted(commit_seconds(jobs, isolated_server))
        again = response_seconds(
            walter, authorize_url(isolated_server, f"{ids[0]}?again")[0]
        )
    assert took[len(took) // 2] < QUICK
    answers = [job.result() for job in jobs]
    assert max(answers) < HOLDS + 2 and max(answers) > HOLDS - 1
    assert not OAuthClient.objects.filter(client_id__in=ids).exists()
    assert again < 1, "a host that was silent is left alone for a while"


def response_seconds(http: httpx2.Client, url: str) -> float:
    """Seconds until the response."""
    started = time.monotonic()
    assert http.get(url).status_code in (400, 429)
    return time.monotonic() - started
