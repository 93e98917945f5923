"""Second factors: set up, required at every sign-in method, encrypted, rate limited."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import override_settings

from accounts.authentication.mfa import MFAAdapter
from accounts.crypto.encryption import KeyUnreadable
from accounts.http.session_store import SessionStore
from accounts.models import AuditEvent, IssuedToken, User
from tests.support.html_browser import Browser
from tests.support.oauth_client import authorize_url, register_client
from tests.support.passkey import Passkey
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD
from tests.support.visitor import Visitor

pytestmark = pytest.mark.usefixtures("default_users", "without_factors")
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


@pytest.fixture
def without_factors(rows: None) -> Iterator[None]:
    """Removes second factors and counts before and after."""
    AccessAttempt.objects.all().delete()
    Authenticator.objects.all().delete()
    UserSession.objects.all().delete()
    yield
    Authenticator.objects.all().delete()


@pytest.fixture(scope="module")
def strict_server(rows: None, folder: Path) -> Iterator[Portico]:
    """A server where staff need a second factor; three wrong attempts lock out."""
    settings = {"STAFF_SECOND_FACTOR": "on", "LOCKOUT_AFTER": "3"}
    with running_server(folder, **settings) as running:
        yield running


def code(secret: str = SECRET) -> str:
    """The current code of an authenticator app, valid for some more seconds."""
    while time.time() % 30 > 26:
        time.sleep(0.2)
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30)))


def with_app(name: str) -> list[str]:
    """Set up an authenticator app; the recovery codes."""
    user = User.objects.get(username=name)
    TOTP.activate(user, SECRET)
    codes: list[str] = RecoveryCodes.activate(user).generate_codes()
    return codes


def obtain_token(server: Portico, name: str = "alice", **more: str) -> httpx2.Response:
    body = {"username": name, "password": PASSWORD, **more}
    return httpx2.post(f"{server.url}/api/token/", json=body, verify=False)


@pytest.mark.once
def test_an_app_is_set_up_and_required(strict_server: Portico) -> None:
    """Secrets are encrypted, changes audited."""
    with Browser(strict_server.url) as alice, Browser(strict_server.url) as elsewhere:
        for browser in (elsewhere, alice):
            browser.open("/accounts/login/?next=/portal/security/")
            browser.submit(browser.form("password"), login="alice", password=PASSWORD)
        alice.open("/accounts/2fa/totp/activate/")
        alice.submit(alice.form("password"), password=PASSWORD)
        start = alice.page.text.index('id="authenticator_secret"')
        secret = alice.page.text[start:].split('value="')[1].split('"')[0]
        alice.submit(alice.form("code"), code=code(secret))
        assert "Recovery codes" in alice.page.text
        elsewhere.open("/portal/security/")
        assert "password" in elsewhere.page.text and "Sign in" in elsewhere.page.text
    stored = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert secret not in stored
    assert AuditEvent.objects.filter(action="second_factor.added").exists()
    with Browser(strict_server.url) as alice:
        alice.open("/accounts/login/?next=/portal/security/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        assert str(alice.page.url).endswith("/accounts/2fa/authenticate/")
        assert "/accounts/" in str(alice.http.get("/portal/security/").url)
        alice.open("/accounts/2fa/authenticate/")
        alice.submit(alice.form("code"), code=code(secret))
        assert "Where you are signed in" in alice.page.text


@pytest.mark.once
def test_the_password_grant_asks_for_a_code(strict_server: Portico) -> None:
    """second_factor_required; each code once; recovery codes too."""
    codes = with_app("alice")
    missing = obtain_token(strict_server)
    assert missing.status_code == 401
    assert missing.json()["error"] == "second_factor_required"
    now = code()
    assert obtain_token(strict_server, otp=now).status_code == 200
    again = obtain_token(strict_server, otp=now)
    assert again.status_code == 401 and again.json()["error"] == "invalid_grant"
    assert obtain_token(strict_server, otp=codes[0]).status_code == 200
    assert obtain_token(strict_server, otp=codes[0]).status_code == 401


@pytest.mark.spec("RFC 6238 5.2")
def test_a_code_is_accepted_once_across_processes(rows: None, folder: Path) -> None:
    """RFC 6238 5.2: the database stores the last step."""
    with_app("alice")
    with running_server(folder) as one, running_server(folder) as two:
        now = code()
        statuses = {obtain_token(server, otp=now).status_code for server in (one, two)}
    assert statuses == {200, 401}


@pytest.mark.once
def test_wrong_codes_lock_out_like_wrong_passwords(strict_server: Portico) -> None:
    """With the password known, codes cannot be guessed without limit."""
    with_app("alice")
    for _ in range(2):
        assert obtain_token(strict_server, otp="000000").status_code == 401
    assert obtain_token(strict_server, otp="000000").status_code == 429
    shut = obtain_token(strict_server, otp=code())
    assert shut.status_code == 429 and int(shut.headers["retry-after"]) > 800
    denied = AuditEvent.objects.filter(reason="second_factor", object="alice")
    assert denied.exists()
    AccessAttempt.objects.all().delete()
    with Browser(strict_server.url) as alice:
        alice.open("/accounts/login/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        for _ in range(3):
            alice.submit(alice.form("code"), code="000000")
        assert alice.page.status_code == 429
        alice.open("/accounts/2fa/authenticate/")
        alice.submit(alice.form("code"), code=code())
        assert alice.page.status_code == 429


@pytest.mark.once
def test_staff_must_set_up_a_second_factor(strict_server: Portico) -> None:
    """Admin, portal, consent and the password grant require it."""
    assert (
        obtain_token(strict_server, "carol").json()["error"] == "second_factor_required"
    )
    client_id = register_client(strict_server)["client_id"]
    with Browser(strict_server.url) as carol:
        carol.sign_in("carol")
        url = authorize_url(strict_server, client_id)[0].removeprefix(strict_server.url)
        for path in ("/admin/", "/admin/accounts/user/", "/portal/", "/device", url):
            carol.open(path)
            assert str(carol.page.url).endswith("/portal/security/"), path
            assert "Set up an authenticator app" in carol.page.text
        with_app("carol")
        assert "Overview" in carol.open("/admin/").page.text
    assert obtain_token(strict_server, "carol", otp=code()).status_code == 200
    assert obtain_token(strict_server, "alice").status_code == 200


@pytest.mark.once
def test_consent_requires_the_second_factor(strict_server: Portico) -> None:
    """The authorization flow uses the same sign-in pages."""
    codes = with_app("alice")
    client_id = register_client(strict_server)["client_id"]
    with Visitor(strict_server.url, "alice") as alice:
        end = alice.visit(authorize_url(strict_server, client_id)[0])
        assert end.endswith("/accounts/2fa/authenticate/")
        alice.http.follow_redirects = True
        alice.submit(alice.form("code"), code=codes[1])
        assert "asks for access" in alice.page.text


def signing_in(server: Portico, name: str) -> Browser:
    """A browser that has given the password."""
    browser = Browser(server.url)
    browser.open("/accounts/login/?next=/portal/security/")
    return browser.submit(browser.form("password"), login=name, password=PASSWORD)


def challenge_on(page: httpx2.Response) -> str:
    """The challenge of the ceremony that a page begins."""
    found = re.search(r'"challenge":\s*"([^"]+)"', html.unescape(page.text))
    assert found, page.text
    return found[1]


def with_passkey(server: Portico, name: str) -> Passkey:
    """Register a passkey on the page."""
    key = Passkey("127.0.0.1", server.url)
    with signing_in(server, name) as browser:
        browser.open("/accounts/2fa/webauthn/add/")
        if "reauthenticate" in str(browser.page.url):
            browser.submit(browser.form("password"), password=PASSWORD)
        response = key.register(challenge_on(browser.page))
        browser.submit(browser.form("credential"), credential=json.dumps(response))
    assert Authenticator.objects.filter(user__username=name, type="webauthn").exists()
    return key


PASSKEY_SIGN_IN = "/accounts/2fa/webauthn/login/"


def enters(
    browser: Browser, key: Passkey, name: str, challenge: str, verified: bool
) -> bool:
    """Present a passkey instead of a password; whether the browser is signed in."""
    response = key.sign(challenge, User.objects.get(username=name), verified)
    sent = {"credential": json.dumps(response)}
    sent["csrfmiddlewaretoken"] = browser.http.cookies.get("csrftoken") or ""
    headers = {"referer": str(browser.http.base_url)}
    browser.http.post(PASSKEY_SIGN_IN, data=sent, headers=headers)
    return at_security(browser)


def at_security(browser: Browser) -> bool:
    """Whether the browser is signed in."""
    return str(browser.open("/portal/security/").page.url.path) == "/portal/security/"


def let_sign_in_expire(browser: Browser) -> None:
    """allauth forgets a second step after 15 minutes, but not its challenge."""
    store = SessionStore(browser.http.cookies[settings.SESSION_COOKIE_NAME])
    store["account_login"]["initiated_at"] -= 3600
    store.save()


@pytest.mark.once
@pytest.mark.parametrize("verified", [False, True])
def test_a_passkey_alone_signs_in_only_the_person_it_verified(
    strict_server: Portico, verified: bool
) -> None:
    """Also with the challenge of a second step, which asks for a touch only."""
    keys = {name: with_passkey(strict_server, name) for name in ("alice", "bob")}
    alice, bob = keys["alice"], User.objects.get(username="bob")
    with Browser(strict_server.url) as browser:
        browser.open("/accounts/login/")
        ajax = {"x-requested-with": "XMLHttpRequest"}
        challenge = challenge_on(browser.http.get(PASSKEY_SIGN_IN, headers=ajax))
        assert enters(browser, alice, "alice", challenge, verified) == verified
    with signing_in(strict_server, "bob") as browser:
        browser.open("/accounts/2fa/authenticate/")
        challenge = challenge_on(browser.page)
        let_sign_in_expire(browser)
        assert enters(browser, alice, "alice", challenge, verified) == verified
    with signing_in(strict_server, "bob") as browser:
        browser.open("/accounts/2fa/authenticate/")
        response = keys["bob"].sign(challenge_on(browser.page), bob, verified)
        browser.submit(browser.form("credential"), credential=json.dumps(response))
        assert at_security(browser)


@pytest.mark.once
def test_sessions_are_listed_and_ended(strict_server: Portico) -> None:
    """One by one, and all of them together with every token."""
    strict_server.token("alice")
    with Browser(strict_server.url) as here, Browser(strict_server.url) as there:
        for browser in (there, here):
            browser.open("/accounts/login/?next=/portal/security/")
            browser.submit(browser.form("password"), login="alice", password=PASSWORD)
        here.open("/portal/security/")
        here.submit(here.form("end"), "end")
        assert "Session ended" in here.page.text
        assert "Sign in" in there.open("/portal/security/").page.text
        here.submit(here.form("everywhere"), "everywhere")
        assert str(here.page.url).endswith("/accounts/login/")
        assert "login" in str(here.open("/portal/").page.url)
    alice = User.objects.get(username="alice")
    assert not IssuedToken.objects.filter(user=alice).live().exists()
    assert not UserSession.objects.filter(user=alice).exists()
    actions = ["session.ended", "user.signed_out_everywhere"]
    assert AuditEvent.objects.filter(action__in=actions).count() >= 2


@pytest.mark.once
def test_an_administrator_resets_a_lost_factor(strict_server: Portico) -> None:
    """In the admin and by command; audited."""
    with_app("alice")
    codes = with_app("carol")
    with Browser(strict_server.url) as carol:
        carol.sign_in("carol")
        carol.submit(carol.form("code"), code=codes[0])
        alice = User.objects.get(username="alice")
        carol.act("/admin/accounts/user/", "reset_factors", alice.pk)
        assert "2 second factors removed" in carol.page.text
    assert obtain_token(strict_server).status_code == 200
    call_command("reset_second_factor", "carol")
    assert not Authenticator.objects.exists()
    assert AuditEvent.objects.filter(action="second_factor.reset").count() >= 2


def log_with(server: Portico, words: str) -> str:
    """The log once it has these words: mails are sent after the response."""
    ends = time.monotonic() + 30
    while words not in (log := server.log.read_text()) and time.monotonic() < ends:
        time.sleep(0.02)
    return log


@pytest.mark.once
def test_a_password_is_changed_and_reset_by_mail(strict_server: Portico) -> None:
    """Development prints the mail; an unknown address gets none."""
    forgetful = User.objects.create_user("forgetful", "forgetful@example.com", PASSWORD)
    with Browser(strict_server.url) as browser:
        for mail in ("nobody@example.com", "forgetful@example.com"):
            browser.open("/accounts/password/reset/")
            browser.submit(browser.form("email"), email=mail)
            assert "a link is on its way" in browser.page.text
        log = log_with(strict_server, "Thank you for using")
        assert "To: forgetful@example.com" in log and "nobody@example.com" not in log
        link = log[log.index("/accounts/password/reset/key/") :].split()[0]
        browser.open(link)
        new = "a longer new password 7"
        browser.submit(browser.form("password1"), password1=new, password2=new)
        assert "Sign in with your new password" in browser.page.text
        browser.open("/accounts/login/?next=/accounts/password/change/")
        browser.submit(browser.form("password"), login="forgetful", password=new)
        form = browser.form("oldpassword")
        browser.submit(form, oldpassword=new, password1=PASSWORD, password2=PASSWORD)
    forgetful.refresh_from_db()
    assert forgetful.check_password(PASSWORD)
    assert AuditEvent.objects.filter(action="mail.sent").exists()
    assert Session.objects.exists()


@pytest.mark.once
def test_secrets_decrypt_with_their_key_only() -> None:
    """AES-256-GCM with a key for this purpose only."""
    adapter = MFAAdapter()
    sealed = adapter.encrypt("secret")
    assert adapter.decrypt(sealed) == "secret" and "secret" not in sealed
    assert adapter.encrypt("secret") != sealed
    with override_settings(KEY_ENCRYPTION_KEY="another"):
        with pytest.raises(KeyUnreadable):
            adapter.decrypt(sealed)
    for broken in ("", "%%%", sealed[:-4]):
        with pytest.raises(KeyUnreadable):
            adapter.decrypt(broken)
