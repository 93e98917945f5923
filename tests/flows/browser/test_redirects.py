"""A real Chromium follows clients and providers that redirect on, after every form."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from axes.models import AccessAttempt

from accounts.models import SignInProvider, User
from tests.flows.tokens.test_second_factor import with_app
from tests.support.chromium import BrowserUser
from tests.support.oauth_client import approve_client, authorize_url, register_client
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, oidc_provider
from tests.support.server import Portico

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]
PRIVATE = "com.example.app://done"


class Client:
    """An OAuth client's own server, which may redirect the browser on."""

    def __init__(self, address: str, then: str = "") -> None:
        self.paths: list[str] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                client.paths.append(self.path.partition("?")[0])
                self.send_response(302 if then else 200)
                self.send_header("location" if then else "content-type", then or "text")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Log nothing."""

        kind = type(
            "Server", (http.server.ThreadingHTTPServer,), {"address_family": family}
        )
        self.server = kind((address, 0), Handler)
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self.server.server_port}"


@contextmanager
def serving(address: str, then: str = "") -> Iterator[Client]:
    client = Client(address, then)
    thread = threading.Thread(target=client.server.serve_forever)
    thread.start()
    try:
        yield client
    finally:
        client.server.shutdown()
        thread.join()
        client.server.server_close()


@pytest.fixture
def alice(server: Portico, chromium: Any) -> Iterator[BrowserUser]:
    """alice in a window, with an authenticator app; fails on browser errors."""
    AccessAttempt.objects.all().delete()
    Authenticator.objects.all().delete()
    person = BrowserUser(chromium, "light", 1366)
    yield person
    person.window.close()
    Authenticator.objects.all().delete()
    assert person.errors == []


def asked_for(page: Any, start: str) -> Any:
    """Expect the browser to request a URL, also one that it then refuses to open."""
    return page.expect_event(
        "request", lambda request: str(request.url).startswith(start)
    )


def enter(alice: BrowserUser, url: str, code: str) -> None:
    """Open the authorize URL and sign in, up to the second factor."""
    alice.page.goto(url)
    alice.sign_in()
    alice.page.wait_for_url("**/2fa/authenticate/")
    alice.page.fill("input[name=code]", code)


@pytest.mark.parametrize("then", ["", "other origin", "private scheme"])
def test_the_browser_follows_the_client(
    server: Portico, alice: BrowserUser, then: str
) -> None:
    """After consent, and after the second factor if consent was given before."""
    codes = with_app("alice")
    with serving("127.0.0.1") as last:
        target = {"": "", "other origin": f"{last.url}/end", "private scheme": PRIVATE}
        with serving("::1", target[then]) as client:
            client_id = approve_client(
                register_client(server, redirect_uris=[f"{client.url}/cb"])["client_id"]
            )
            url = authorize_url(server, client_id, redirect_uri=f"{client.url}/cb")[0]
            goal = target[then] or f"{client.url}/cb"
            enter(alice, url, codes[0])
            alice.page.click("main button[type=submit]")
            with asked_for(alice.page, goal):
                alice.page.click("button[value=allow]")
            alice.open_tab()
            enter(alice, url, codes[1])
            with asked_for(alice.page, goal):
                alice.page.click("main button[type=submit]")
            assert client.paths.count("/cb") == 2
            assert last.paths.count("/end") == (2 if then == "other origin" else 0)


def test_a_provider_leads_to_the_client(server: Portico, alice: BrowserUser) -> None:
    """The whole way from the provider's button is one chain of redirects."""
    with oidc_provider() as corporate, serving("::1") as client:
        corporate.person = {"sub": "f-1", "preferred_username": "fritz"}
        row = SignInProvider(slug="corp", name="Corp", issuer=corporate.url)
        row.client_id, row.sign_up = CLIENT_ID, True
        row.set_secret(CLIENT_SECRET)
        row.save()
        back = f"{client.url}/cb"
        client_id = approve_client(
            register_client(server, redirect_uris=[back])["client_id"]
        )
        url = authorize_url(server, client_id, redirect_uri=back)[0]
        try:
            for button in ("allow", ""):
                alice.page.goto(url)
                alice.page.click("form[action*='/oidc/corp/'] button")
                if button:
                    alice.page.click(f"button[value={button}]")
                alice.page.wait_for_url(f"{back}?code=**")
                alice.window.clear_cookies()
        finally:
            row.delete()
            User.objects.filter(username="fritz").delete()
    assert client.paths.count("/cb") == 2
