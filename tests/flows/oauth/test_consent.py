"""The consent page: its content, one-time consent, and CSRF."""

from __future__ import annotations

import pytest

from accounts.models import AuditEvent, Consent, OAuthClient, OAuthGrant, User
from tests.support.mcp_client import HTTP
from tests.support.oauth_client import (
    approve_client,
    authorize_url,
    register_client,
    signed_in,
)
from tests.support.server import Portico
from tests.support.users import make_user
from tests.support.visitor import Visitor, callback

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.mark.spec("MCP SEC Localhost Redirects: the redirect's host is shown")
@pytest.mark.spec("MCP BP consent UI: client, scopes, redirect")
def test_the_consent_page_shows_client_scopes_and_redirect(server: Portico) -> None:
    """MCP SEC, BP; CIMD 6.4: shown as text, with a warning for unverified clients."""
    uris = ["https://app.example/cb", "http://127.0.0.1/callback"]
    client_id = register_client(server, client_name="Notes <b>", redirect_uris=uris)[
        "client_id"
    ]
    with Visitor(server.url, "alice", "neither") as visitor:
        parameters = {"redirect_uri": uris[0], "scope": "mcp User.Write"}
        visitor.visit(authorize_url(server, client_id, **parameters)[0])
        page = visitor.page.text
        assert "app.example" in page and client_id in page and "alice" in page
        assert "Notes &lt;b&gt;" in page and "could not verify" in page
        assert "(mcp)" in page and "(User.Write)" in page
        assert "this computer" not in page
        visitor.visit(authorize_url(server, client_id)[0])
        assert "127.0.0.1 (this computer)" in visitor.page.text
    OAuthClient.objects.filter(client_id=client_id).update(approved=True)
    with Visitor(server.url, "alice", "neither") as visitor:
        visitor.visit(authorize_url(server, client_id)[0])
        assert "could not verify" not in visitor.page.text


@pytest.mark.spec("MCP BP Confused Deputy: consent per client")
def test_consent_is_stored_per_client_and_scope(server: Portico) -> None:
    """Asked once; a new scope, host or prompt=consent asks again."""
    uris = ["http://127.0.0.1/callback", "https://app.example/cb"]
    client_id = approve_client(register_client(server, redirect_uris=uris)["client_id"])
    signed_in(server, client_id=client_id)
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(authorize_url(server, client_id)[0])
        assert not any("asks for access" in page for page in visitor.seen)
        asks = ({"scope": "mcp User.Write"}, {"prompt": "consent"})
        for count, changed in enumerate(asks, 1):
            visitor.visit(authorize_url(server, client_id, **changed)[0])
            assert sum("asks for access" in page for page in visitor.seen) == count
        visitor.visit(authorize_url(server, client_id, redirect_uri=uris[1])[0])
        assert sum("asks for access" in page for page in visitor.seen) == 3
    with Visitor(server.url, "bob") as other:
        other.visit(authorize_url(server, client_id)[0])
        assert sum("asks for access" in page for page in other.seen) == 1


PRIVATE = "evil.app://claude.ai/api/mcp/auth_callback"


@pytest.mark.spec("RFC 8252 8.6: any program may register a private scheme")
@pytest.mark.parametrize("uri", [PRIVATE])
def test_a_private_scheme_is_shown_in_full(server: Portico, uri: str) -> None:
    """RFC 8252 8.6: the client chooses what looks like a host there."""
    client_id = register_client(server, redirect_uris=[uri])["client_id"]
    url, _ = authorize_url(server, client_id, redirect_uri=uri)
    scheme = uri.partition(":")[0]
    with Visitor(server.url, "alice", "neither") as visitor:
        visitor.visit(url)
        shown = visitor.page.text.partition("Redirects to</dt>")[2]
        assert shown.startswith(f"<dd>{scheme}:</dd>"), shown[:100]
        visitor.decision = "allow"
        assert visitor.visit(url).startswith(f"{scheme}:")
    consent = Consent.objects.get(client__client_id=client_id)
    assert consent.redirect_host == f"{scheme}:"


@pytest.mark.spec("RFC 8252 8.6: always ask for a shared redirect")
@pytest.mark.parametrize(
    ("uri", "silent"),
    [
        (PRIVATE, False),
        ("https://app.example/callback", True),
    ],
)
def test_an_unverified_client_with_a_shared_redirect_is_always_asked(
    server: Portico, uri: str, silent: bool
) -> None:
    """RFC 8252 8.6: each time, until an administrator approves the client."""
    client_id = register_client(server, redirect_uris=[uri])["client_id"]
    with Visitor(server.url, "alice") as visitor:
        for times in (1, 1 if silent else 2):
            end = visitor.visit(authorize_url(server, client_id, redirect_uri=uri)[0])
            assert "code=" in end
            assert sum("asks for access" in page for page in visitor.seen) == times
        approve_client(client_id)
        visitor.visit(authorize_url(server, client_id, redirect_uri=uri)[0])
        assert sum("asks for access" in page for page in visitor.seen) == times


def test_a_head_request_decides_and_reveals_nothing(server: Portico) -> None:
    """Django answers HEAD with GET, which could issue a code or test a device code."""
    client_id = approve_client(register_client(server)["client_id"])
    signed_in(server, client_id=client_id)
    before = OAuthGrant.objects.count()
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(authorize_url(server, client_id)[0])
        url = authorize_url(server, client_id)[0]
        for path in (url, "/device", "/device?user_code=BCDF-GHJK"):
            head = visitor.http.head(path)
            assert head.status_code == 405 and "location" not in head.headers
    assert OAuthGrant.objects.count() == before + 1


@pytest.mark.spec("OAuth 2.1 7.5.4: no 307 after a form")
@pytest.mark.spec("MCP BP consent UI: CSRF")
def test_a_decision_needs_the_forms_csrf_token(server: Portico) -> None:
    """OAuth 2.1 7.5.4; MCP BP: without the form's token nothing is decided."""
    client_id = register_client(server)["client_id"]
    url, _ = authorize_url(server, client_id)
    with Visitor(server.url, "alice", "neither") as visitor:
        visitor.visit(url)
        forged = visitor.http.post(url, data={"decision": "allow"})
        assert forged.status_code == 403
        assert not Consent.objects.filter(client__client_id=client_id).exists()
        visitor.decision = "allow"
        form = visitor.next_form()
        assert form is not None
        visitor.answer(form)
        assert visitor.page.status_code == 302
    outside = HTTP.post(url, data={"decision": "allow"})
    assert outside.status_code in (302, 403)
    assert "code=" not in outside.headers.get("location", "")


@pytest.mark.spec("MCP BP consent cookies")
def test_the_cookies_of_a_decision_are_httponly(server: Portico) -> None:
    """MCP BP: HttpOnly, SameSite=Lax; Secure wherever the issuer is https."""
    with Visitor(server.url, "alice", "neither") as visitor:
        visitor.visit(authorize_url(server, register_client(server)["client_id"])[0])
        session = next(c for c in visitor.http.cookies.jar if c.name == "sessionid")
        assert session.has_nonstandard_attr("HttpOnly")
        assert session.get_nonstandard_attr("SameSite") == "Lax"


@pytest.mark.spec("OAuth 2.1 7.11")
def test_the_pages_cannot_be_framed_and_run_no_scripts(server: Portico) -> None:
    """OAuth 2.1 7.11: clickjacking; strict CSP; includes the sign-in page."""
    client_id = register_client(server, client_name="<script>alert(1)</script>")[
        "client_id"
    ]
    url, _ = authorize_url(server, client_id)
    with Visitor(server.url, "alice", "neither") as visitor:
        visitor.visit(url)
        page = visitor.page
    sign_in = HTTP.get(server.url + HTTP.get(url).headers["location"])
    for shown in (page, sign_in):
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
        assert shown.headers["x-frame-options"] == "DENY"
    policy = page.headers["content-security-policy"]
    assert "script-src 'none'" in policy
    assert "form-action" not in policy
    assert "<script>" not in page.text and "&lt;script&gt;" in page.text


@pytest.mark.spec("RFC 6749 4.1.2.1: state echoed on errors")
@pytest.mark.spec("RFC 9207 2")
def test_denying_returns_with_the_issuer_and_no_code(server: Portico) -> None:
    """RFC 6749 4.1.2.1, RFC 9207 2."""
    client_id = register_client(server)["client_id"]
    with Visitor(server.url, "alice", "deny") as visitor:
        found = callback(visitor.visit(authorize_url(server, client_id)[0]))
    assert found["error"] == "access_denied" and "code" not in found
    assert (found["state"], found["iss"]) == ("xyz", server.url)
    assert AuditEvent.objects.filter(action="consent.denied").exists()


def test_a_user_deactivated_at_the_consent_page_has_to_sign_in(server: Portico) -> None:
    """A deactivated account loses its session while the consent page is open."""
    make_user("sybil", "User")
    client_id = register_client(server)["client_id"]
    with Visitor(server.url, "sybil", "neither") as visitor:
        visitor.visit(authorize_url(server, client_id)[0])
        visitor.decision = "allow"
        form = visitor.next_form()
        assert form is not None
        User.objects.filter(username="sybil").update(is_active=False)
        visitor.answer(form)
        assert visitor.page.headers["location"].startswith("/accounts/login/")
    assert not Consent.objects.filter(user__username="sybil").exists()
