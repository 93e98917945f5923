"""Every kind of credential and pending grant, created for one user and tried.

A new kind needs a function here; tests/flows/tokens/test_end_of_access.py
fails for a table, a grant or a kind of token that none of these creates.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.management import call_command
from django.utils import timezone

from accounts.authentication.passwords.reset_links import ResetTokenGenerator
from accounts.crypto.secrets import secret_hash
from accounts.http.session_store import SessionStore
from accounts.models import (
    Consent,
    Invitation,
    IssuedVia,
    OAuthClient,
    OAuthDeviceGrant,
    User,
)
from accounts.models.audit.origins import COMMAND_LINE
from accounts.tokens.issue import issue_personal_token, issue_tokens
from tests.flows.mcp.test_routing import listening
from tests.support.html_browser import Browser
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    BACK,
    authorize_url,
    command_line_client,
    redeem,
    refresh,
)
from tests.support.server import Portico, in_process_transport
from tests.support.users import PASSWORD, make_user
from tests.support.visitor import callback

COOKIE = settings.SESSION_COOKIE_NAME
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
ENDS_WITHIN = 3.0
"""Seconds for an open stream on a busy machine; the documented limit is one."""

Works = Callable[[], bool]


@dataclass
class CredentialOwner:
    """A user, the client they allowed, and their credentials: name -> does it work."""

    server: Portico
    name: str
    client_id: str
    own: Browser
    """The browser of the user's own actions; it is not tried."""
    held: dict[str, Works] = field(default_factory=dict)
    opened: list[Any] = field(default_factory=list)

    @property
    def user(self) -> User | None:
        """The account, or None once it is deleted."""
        found: User | None = User.objects.filter(username=self.name).first()
        return found

    @property
    def account(self) -> User:
        """The account, which has to exist."""
        found: User = User.objects.get(username=self.name)
        return found

    def works(self) -> set[str]:
        """Names of what still works; some work once."""
        return {name for name, tried in self.held.items() if tried()}

    def close(self) -> None:
        """Close browsers and remaining streams."""
        rest = User.objects.filter(username=self.name)
        rest.revoke_all_sessions(actor=None, reason="the test is over")
        for one in (self.own.http, *self.opened):
            one.close()


def credential_owner(
    server: Portico, name: str, kinds: Iterable[str] = (), documented: bool = False
) -> CredentialOwner:
    """A new user with one of each kind, or of these.

    With all kinds the user signs in on the page.
    """
    user = make_user(name, "User")
    own = session_of(server, user) if kinds else signed_in(server, name)
    made_up = CredentialOwner(server, name, program(name, documented), own)
    for kind in kinds or KINDS:
        made_up.held[kind] = KINDS[kind](made_up)
    return made_up


def program(name: str, documented: bool) -> str:
    """A client for every grant, identified by a document fetched a moment ago."""
    source = OAuthClient.RegistrationSource
    client = OAuthClient.objects.create(
        client_id=f"https://{name}.example/client.json" if documented else f"of-{name}",
        name=name,
        client_type="public",
        registration_source=source.CIMD if documented else source.MANUAL,
        cimd_expires_at=timezone.now() + timedelta(days=1) if documented else None,
        authorization_grant_type=OAuthClient.GRANT_AUTHORIZATION_CODE,
        redirect_uris=BACK,
        grant_types=["authorization_code", "refresh_token", DEVICE],
    )
    return str(client.client_id)


def signed_in(server: Portico, name: str) -> Browser:
    """A browser at the portal, by the sign-in page."""
    browser = Browser(server.url, in_process_transport())
    browser.open("/accounts/login/?next=/portal/apps/")
    return browser.submit(browser.form("password"), login=name, password=PASSWORD)


def session_of(server: Portico, user: User) -> Browser:
    """A browser with a session that no list has."""
    store = SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store.save()
    browser = Browser(server.url, in_process_transport())
    browser.http.cookies.set(COOKIE, str(store.session_key))
    return browser


def at_portal(browser: Browser) -> bool:
    return "/accounts/login/" not in str(browser.open("/portal/apps/").page.url)


def is_accepted(who: CredentialOwner, raw: str) -> bool:
    """Whether an access token is accepted at /mcp."""
    return McpClient(who.server, raw).post("tools/list").status_code == 200


def pair_works(who: CredentialOwner, access: str, renewed: httpx2.Response) -> bool:
    """Whether either token of a pair is accepted."""
    return is_accepted(who, access) or renewed.status_code == 200


def password_pair(who: CredentialOwner) -> Works:
    body = {"username": who.name, "password": PASSWORD}
    got = HTTP.post(f"{who.server.url}/api/token/", json=body).json()
    again = {"refresh": got["refresh"]}
    path = f"{who.server.url}/api/token/refresh/"
    return lambda: pair_works(who, got["access"], HTTP.post(path, json=again))


def allowed_code(who: CredentialOwner) -> tuple[str, str]:
    """(code, verifier) of the client, allowed on the consent page."""
    url, raw = authorize_url(who.server, who.client_id)
    browser = who.own
    browser.http.follow_redirects = False
    try:
        browser.page = browser.http.get(url)
        if not browser.page.is_redirect:
            browser.submit(browser.form("decision"), decision="allow")
        return callback(browser.page.headers["location"])["code"], raw
    finally:
        browser.http.follow_redirects = True


def code_pair(who: CredentialOwner) -> Works:
    got = redeem(who.server, who.client_id, *allowed_code(who)).json()
    access, raw = got["access_token"], got["refresh_token"]
    return lambda: pair_works(who, access, refresh(who.server, who.client_id, raw))


def unredeemed_code(who: CredentialOwner) -> Works:
    """A code that its client has not redeemed."""
    code, raw = allowed_code(who)
    return lambda: returns_token(who, redeem(who.server, who.client_id, code, raw))


def returns_token(who: CredentialOwner, answer: httpx2.Response) -> bool:
    """Whether a token response has an accepted token."""
    if answer.status_code != 200:
        assert answer.status_code in (400, 401), answer.text
        return False
    assert is_accepted(who, answer.json()["access_token"])
    return True


def begun(who: CredentialOwner) -> dict[str, Any]:
    form = {"client_id": who.client_id}
    answer: dict[str, Any] = HTTP.post(
        f"{who.server.url}/oauth/device", data=form
    ).json()
    return answer


def decide(browser: Browser, code: dict[str, Any]) -> None:
    """Allow a device in a browser, if it is signed in and asked."""
    browser.open(f"/device?user_code={code['user_code']}")
    forms = [f for f in browser.forms if any(b[0] == "decision" for b in f.buttons)]
    for form in forms[:1]:
        browser.submit(form, decision="allow")


def poll(who: CredentialOwner, code: dict[str, Any]) -> httpx2.Response:
    """Poll for the tokens of a device code."""
    OAuthDeviceGrant.objects.update(polled_at=None)
    form = {"grant_type": DEVICE, "client_id": who.client_id}
    form["device_code"] = code["device_code"]
    return HTTP.post(f"{who.server.url}/oauth/token", data=form)


def pending_device(who: CredentialOwner) -> Works:
    """Pending: an earlier session could still decide."""
    code, browser = begun(who), session_of(who.server, who.account)
    who.opened.append(browser.http)

    def tried() -> bool:
        decide(browser, code)
        return returns_token(who, poll(who, code))

    return tried


def allowed_device(who: CredentialOwner) -> Works:
    code = begun(who)
    decide(who.own, code)
    return lambda: returns_token(who, poll(who, code))


def device_pair(who: CredentialOwner) -> Works:
    code = begun(who)
    decide(who.own, code)
    got = poll(who, code).json()
    access, raw = got["access_token"], got["refresh_token"]
    return lambda: pair_works(who, access, refresh(who.server, who.client_id, raw))


def client_credentials(who: CredentialOwner) -> Works:
    """A token of a client that acts as this account."""
    known = command_line_client(f"job of {who.name}", "--service-account", who.name)
    form = {"grant_type": "client_credentials"}
    basic = (known["client_id"], known["client_secret"])
    got = HTTP.post(f"{who.server.url}/oauth/token", data=form, auth=basic).json()
    return lambda: is_accepted(who, got["access_token"])


def personal(who: CredentialOwner) -> Works:
    _row, raw = issue_personal_token(
        who.account, name="script", scope="mcp", lifetime=timedelta(days=1)
    )
    return lambda: is_accepted(who, raw)


def tried_tool(who: CredentialOwner) -> Works:
    """The token with which the portal calls a tool."""
    pair = issue_tokens(
        who.account,
        issued_via=IssuedVia.PORTAL,
        refresh=False,
        lifetime=timedelta(minutes=5),
    )
    return lambda: is_accepted(who, pair.access)


def by_command(who: CredentialOwner) -> Works:
    out = io.StringIO()
    with who.server.settings():
        call_command("issue_token", who.name, "--refresh", "--json", stdout=out)
    got = json.loads(out.getvalue())
    path, again = f"{who.server.url}/api/token/refresh/", {"refresh": got["refresh"]}
    return lambda: pair_works(who, got["access"], HTTP.post(path, json=again))


def listed_session(who: CredentialOwner) -> Works:
    """A browser that signed in on the page."""
    browser = signed_in(who.server, who.name)
    who.opened.append(browser.http)
    return lambda: at_portal(browser)


def unlisted_session(who: CredentialOwner) -> Works:
    """A browser that no list of sessions has."""
    browser = session_of(who.server, who.account)
    who.opened.append(browser.http)
    return lambda: at_portal(browser)


def cycled_session(who: CredentialOwner) -> Works:
    """A browser whose session key changed."""
    browser = signed_in(who.server, who.name)
    who.opened.append(browser.http)
    store = SessionStore(browser.http.cookies[COOKIE])
    store.cycle_key()
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, str(store.session_key))
    return lambda: at_portal(browser)


def half_signed_in(who: CredentialOwner) -> Works:
    """The password was given, the second step is pending."""
    TOTP.activate(who.account, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    codes = RecoveryCodes.activate(who.account).generate_codes()
    browser = signed_in(who.server, who.name)
    who.opened.append(browser.http)
    assert str(browser.page.url).endswith("/accounts/2fa/authenticate/")

    def tried() -> bool:
        browser.open("/accounts/2fa/authenticate/")
        for form in [f for f in browser.forms if "code" in f.fields]:
            browser.submit(form, code=codes[0])
        return at_portal(browser)

    return tried


def reset_link(who: CredentialOwner) -> Works:
    """The link of a password mail."""
    user = who.account
    key = f"{user_pk_to_url_str(user)}-{ResetTokenGenerator().make_token(user)}"
    browser = Browser(who.server.url, in_process_transport())
    who.opened.append(browser.http)

    def tried() -> bool:
        browser.open(f"/accounts/password/reset/key/{key}/")
        return any("password1" in form.fields for form in browser.forms)

    return tried


def invitation_link(who: CredentialOwner) -> Works:
    """A link that was made before the account had a password."""
    with who.server.settings():
        _row, raw = Invitation.objects.issue(who.account, actor=COMMAND_LINE)
    browser = Browser(who.server.url, in_process_transport())
    who.opened.append(browser.http)

    def tried() -> bool:
        """It would only be refused because of the password that the user has."""
        browser.open(f"/accounts/invitation/{raw}/")
        assert not any("password1" in form.fields for form in browser.forms)
        hashed = secret_hash(raw)
        return Invitation.objects.all().with_token_hash(hashed) is not None

    return tried


def consent(who: CredentialOwner) -> Works:
    """The stored consent: the client gets codes without a prompt."""
    url = authorize_url(who.server, who.client_id, prompt="none")[0]

    def tried() -> bool:
        user = who.user
        if user is None or not user.is_active:
            return Consent.objects.filter(user=user).exists()
        with session_of(who.server, user) as browser:
            browser.http.follow_redirects = False
            location = browser.http.get(url).headers.get("location", "")
        return bool(re.search(r"[?&]code=", location))

    return tried


@dataclass
class Stream:
    """An open subscription; `over` once the server has closed it."""

    who: CredentialOwner
    raw: str
    over: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        client = McpClient(self.who.server, self.raw)
        method, options = listening(self.who.server, client)
        url: Any = self.who.server.mcp_url
        with httpx2.Client(timeout=60, verify=False) as http:
            with http.stream(method, url, **options) as answer:  # type: ignore[arg-type]
                for _ in answer.iter_bytes():
                    self.begun.set()
        self.over.set()

    def close(self) -> None:
        """Wait for the end of the stream, which has to come."""
        assert self.over.wait(20)


def open_stream(who: CredentialOwner) -> Works:
    stream = Stream(who, who.server.token(who.name))
    who.opened.append(stream)
    threading.Thread(target=stream.run, daemon=True).start()
    assert stream.begun.wait(20)
    return lambda: not stream.over.wait(ENDS_WITHIN)


KINDS: dict[str, Callable[[CredentialOwner], Works]] = {
    "open stream": open_stream,
    "password pair": password_pair,
    "code pair": code_pair,
    "device pair": device_pair,
    "unredeemed code": unredeemed_code,
    "allowed device code": allowed_device,
    "pending device code": pending_device,
    "client credentials": client_credentials,
    "personal token": personal,
    "token of a tried tool": tried_tool,
    "token by command": by_command,
    "listed session": listed_session,
    "unlisted session": unlisted_session,
    "cycled session": cycled_session,
    "reset link": reset_link,
    "invitation link": invitation_link,
    "consent": consent,
    # Later sign-ins need the second factor.
    "half signed in": half_signed_in,
}
