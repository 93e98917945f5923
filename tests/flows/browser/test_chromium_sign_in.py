"""A real Chromium: sign in, allow, deny, connect; no console error, no CSP report."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.oauth.test_device_and_assertion import GRANT as DEVICE
from tests.flows.oauth.test_device_and_assertion import start_device_flow
from tests.support.chromium import LOOKS, BrowserUser
from tests.support.mcp_client import mcp_client
from tests.support.oauth_client import authorize_url, register_client
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.usefixtures("default_users"),
]


@pytest.fixture
def callback_server() -> Iterator[tuple[int, list[str]]]:
    """A client's callback on a loopback port; lists the requests it gets."""
    requests: list[str] = []

    class Landing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/callback"):
                requests.append(self.path)
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>landed</title>")

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Landing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def visitor(request: Any, chromium: Any) -> Iterator[BrowserUser]:
    somebody = BrowserUser(chromium, *request.param)
    yield somebody
    somebody.window.close()
    assert somebody.errors == []


def shot(visitor: BrowserUser, name: str, request: Any) -> None:
    """Save a screenshot if SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        look = request.node.callspec.id
        visitor.page.screenshot(path=str(Path(folder) / f"{name}-{look}.png"))


@pytest.mark.spec("OAuth 2.1 7.11")
def test_allow_and_deny_reach_the_client(
    server: Portico, visitor: BrowserUser, callback_server: Any, request: Any
) -> None:
    """Under the strict CSP the redirect to 127.0.0.1 still works in Chromium."""
    port, requests = callback_server
    client_id = register_client(server)["client_id"]
    back = {"redirect_uri": f"http://127.0.0.1:{port}/callback"}
    visitor.page.goto(authorize_url(server, client_id, **back)[0])
    shot(visitor, "sign-in", request)
    visitor.sign_in()
    assert "asks for access" in visitor.page.inner_text("h1") and visitor.fits()
    shot(visitor, "consent", request)
    visitor.page.click("button[value=deny]")
    visitor.page.wait_for_url("**/callback?**")
    assert "error=access_denied" in requests[-1]
    visitor.page.goto(authorize_url(server, client_id, **back)[0])
    visitor.page.click("button[value=allow]")
    visitor.page.wait_for_url("**/callback?code=**")
    assert "iss=" in requests[-1]


def test_step_up_and_the_device_page(
    server: Portico, visitor: BrowserUser, callback_server: Any, request: Any
) -> None:
    """A wider scope is asked again; the device code is typed by hand."""
    port, requests = callback_server
    grants = ["authorization_code", "refresh_token", DEVICE]
    client_id = register_client(server, grant_types=grants)["client_id"]
    back = {"redirect_uri": f"http://127.0.0.1:{port}/callback"}
    visitor.page.goto(authorize_url(server, client_id, **back)[0])
    visitor.sign_in()
    visitor.page.click("button[value=allow]")
    visitor.page.wait_for_url("**/callback?code=**")
    wider = authorize_url(server, client_id, **back, scope="mcp User.Write")[0]
    visitor.page.goto(wider)
    assert "including sensitive data" in visitor.page.inner_text("main")
    shot(visitor, "step-up", request)
    visitor.page.click("button[value=allow]")
    visitor.page.wait_for_url("**/callback?code=**")
    device = start_device_flow(server, client_id)
    visitor.page.goto(device["verification_uri"])
    visitor.page.fill("input[name=user_code]", device["user_code"].lower())
    visitor.page.click("button[type=submit]")
    shot(visitor, "device", request)
    assert visitor.fits()
    visitor.page.click("button[value=allow]")
    visitor.page.wait_for_selector("text=continues by itself")
    assert len(requests) == 2


def test_the_connect_page_sees_the_first_call(
    server: Portico, visitor: BrowserUser, request: Any
) -> None:
    """ "waiting" becomes "connected" when a real client calls."""
    name = f"nora-{request.node.callspec.id}"
    make_user(name, "User")
    visitor.page.goto(f"{server.url}/portal/connect/")
    visitor.sign_in(name)
    visitor.page.wait_for_selector("text=Waiting for your client")
    visitor.page.wait_for_selector("button.copy")
    shot(visitor, "connect", request)
    assert visitor.page.locator("button.copy").count() >= 6 and visitor.fits()
    mcp_client(server, name).call("look")
    visitor.page.wait_for_selector("text=Connected with a token", timeout=10_000)
    for path in ("/portal/", "/portal/apps/", "/portal/tokens/"):
        visitor.page.goto(f"{server.url}{path}")
        shot(visitor, path.strip("/").replace("/", "-"), request)
        assert visitor.fits()


def test_the_pages_are_accessible(server: Portico, chromium: Any) -> None:
    """WCAG 2 A and AA, by axe."""
    somebody = BrowserUser(chromium, *LOOKS[0])
    client_id = register_client(server, client_name="Axe")["client_id"]
    paths = [authorize_url(server, client_id)[0]]
    paths += [f"{server.url}/portal/{p}" for p in ("", "connect/", "tokens/")]
    somebody.page.goto(f"{server.url}/accounts/login/")
    problems = [somebody.layout_problems(turn) for turn, _look in enumerate(LOOKS)]
    somebody.sign_in()
    for path in paths:
        somebody.page.goto(path)
        problems += [somebody.layout_problems(turn) for turn, _look in enumerate(LOOKS)]
    somebody.window.close()
    assert problems == [[]] * len(problems)
