"""Parallel guesses: all processes together check no more than a sequence would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from axes.models import AccessAttempt
from django.db.models import Sum

from accounts.authentication.lockout import WIDE_FACTOR
from accounts.models import User
from tests.support.html_browser import Browser
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD, hash_as_shipped

pytestmark = pytest.mark.usefixtures("default_users", "without_counts")
MOST, AT_ONCE = 3, 24
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
Guess = Callable[[int], httpx2.Response]
POST = partial(httpx2.post, timeout=60, verify=False)
"""One connection each; creating an SSL context for https would take 30 ms."""


@pytest.fixture(scope="module")
def two_servers(rows: None, folder: Path) -> Iterator[list[Portico]]:
    """Two processes on one database; three wrong attempts lock out.

    Hashing takes as long as in production: attempts overlap.
    """
    settings = {"LOCKOUT_AFTER": str(MOST), "TRUSTED_PROXIES": "127.0.0.1"}
    settings |= {"HASHING_WAIT": "20", "EXTRA_APPS": "tests.apps.shop"}
    with (
        running_server(folder, **settings) as one,
        running_server(folder, **settings) as other,
    ):
        yield [one, other]


@pytest.fixture
def without_counts(rows: None) -> Iterator[None]:
    """Removes counts and second factors before and after."""
    hash_as_shipped("alice")
    AccessAttempt.objects.all().delete()
    Authenticator.objects.all().delete()
    yield
    AccessAttempt.objects.all().delete()
    Authenticator.objects.all().delete()


def guess_in_parallel(guess: Guess, many: int = AT_ONCE) -> Counter[int]:
    """Guesses in parallel, and the number of each status."""
    with ThreadPoolExecutor(many) as crowd:
        return Counter(r.status_code for r in crowd.map(guess, range(many)))


def failed_attempts() -> int:
    """The number of failed attempts in the database."""
    total = AccessAttempt.objects.aggregate(n=Sum("failures_since_start"))["n"]
    return int(total or 0)


def with_app(name: str) -> list[str]:
    """Set up an authenticator app; the recovery codes."""
    user = User.objects.get(username=name)
    TOTP.activate(user, SECRET)
    codes: list[str] = RecoveryCodes.activate(user).generate_codes()
    return codes


def obtain_token(server: Portico, *, agent: str = "-", **body: str) -> httpx2.Response:
    """The password endpoint, with a given user agent."""
    url, headers = f"{server.url}/api/token/", {"user-agent": agent}
    return POST(
        url,
        json=body,
        headers=headers,
    )


def form_guess(browser: Browser, field: str, **more: str) -> Guess:
    """Wrong values for a field of an open form."""
    form = browser.form(field)
    headers = {"cookie": "; ".join(f"{c.name}={c.value}" for c in browser.jar)}
    headers |= {"referer": str(browser.page.url), "accept": "text/html"}

    def guess(n: int) -> httpx2.Response:
        sent = {**form.fields, **more, field: f"{n:06}"}
        return POST(str(browser.page.url), data=sent, headers=headers, timeout=60)

    return guess


@pytest.mark.parametrize("name", ["alice", "nobody-here"])
def test_password_attempts_are_limited_by_the_lock_out(
    two_servers: list[Portico], name: str
) -> None:
    """Covers existing and unknown names; every program sends another user agent."""

    def guess(n: int) -> httpx2.Response:
        return obtain_token(
            two_servers[n % 2],
            agent=f"program {n}",
            username=name,
            password=f"wrong{n}",
        )

    found = guess_in_parallel(guess)
    assert set(found) <= {401, 429} and found[401] < MOST
    assert failed_attempts() == MOST
    assert (
        obtain_token(two_servers[0], username=name, password=PASSWORD).status_code
        == 429
    )


@pytest.mark.once
def test_passwords_of_one_account_from_many_addresses(
    two_servers: list[Portico],
) -> None:
    """Ten times the limit of one address, from many addresses in parallel."""

    def guess(n: int) -> httpx2.Response:
        url, body = f"{two_servers[n % 2].url}/api/token/", {"username": "alice"}
        headers = {"x-forwarded-for": f"198.51.100.{n}"}
        sent = {**body, "password": "wrong"}
        return POST(
            url,
            json=sent,
            headers=headers,
        )

    most = MOST * WIDE_FACTOR
    assert set(guess_in_parallel(guess, most + 10)) <= {401, 429}
    assert failed_attempts() == most


@pytest.mark.parametrize("right", [False, True])
def test_codes_are_limited_at_the_token_endpoint(
    two_servers: list[Portico], right: bool
) -> None:
    """With the password an attacker tries three codes; one may be right by chance."""
    codes = with_app("alice")
    about = {"username": "alice", "password": PASSWORD}

    def guess(n: int) -> httpx2.Response:
        code = codes[0] if right and n == AT_ONCE - 1 else f"{n:06}"
        return obtain_token(two_servers[n % 2], otp=code, **about)

    found = guess_in_parallel(guess)
    assert set(found) <= {200, 401, 429}
    assert failed_attempts() <= MOST and found[200] <= int(right)
    if not found[200]:
        assert obtain_token(two_servers[1], otp=codes[1], **about).status_code == 429


def test_codes_are_limited_at_the_second_step(two_servers: list[Portico]) -> None:
    """Parallel attempts in one session that gave the password."""
    with_app("alice")
    with Browser(two_servers[0].url) as alice:
        alice.open("/accounts/login/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        found = guess_in_parallel(form_guess(alice, "code"))
    assert set(found) <= {200, 429} and found[200] < MOST
    assert failed_attempts() == MOST


@pytest.mark.parametrize(
    ("page", "field"),
    [
        ("/accounts/reauthenticate/", "password"),
        ("/accounts/password/change/", "oldpassword"),
    ],
)
def test_passwords_are_limited_at_reauthentication(
    two_servers: list[Portico], page: str, field: str
) -> None:
    """A stolen session must not reveal the password."""
    with Browser(two_servers[0].url) as alice:
        alice.open("/accounts/login/?next=/portal/security/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        alice.open(page)
        new = {"password1": "a new one 4711", "password2": "a new one 4711"}
        found = guess_in_parallel(form_guess(alice, field, **new))
        assert set(found) <= {200, 429} and found[200] < MOST
        assert failed_attempts() == MOST
        form = alice.form(field)
        alice.submit(form, **{field: PASSWORD, **new})
        assert alice.page.status_code == 429
    assert User.objects.get(username="alice").check_password(PASSWORD)


def test_codes_are_limited_at_reauthentication(
    two_servers: list[Portico],
) -> None:
    """Once a factor exists, the password alone does not allow removing it."""
    codes = with_app("alice")
    with Browser(two_servers[0].url) as alice:
        alice.open("/accounts/login/?next=/portal/security/")
        alice.submit(alice.form("password"), login="alice", password=PASSWORD)
        alice.submit(alice.form("code"), code=codes[0])
        for page in (
            "/accounts/2fa/totp/deactivate/",
            "/accounts/2fa/recovery-codes/",
            "/accounts/2fa/recovery-codes/generate/",
            "/accounts/2fa/webauthn/add/",
            "/accounts/reauthenticate/?next=/accounts/2fa/totp/deactivate/",
        ):
            alice.open(page)
            assert str(alice.page.url.path) == "/accounts/2fa/reauthenticate/", page
        found = guess_in_parallel(form_guess(alice, "code"))
    assert set(found) <= {200, 429} and found[200] < MOST
    assert failed_attempts() == MOST


def test_parallel_correct_passwords_all_succeed(two_servers: list[Portico]) -> None:
    """Attempts in progress are not failures; a parallel one waits for them."""

    def right(n: int) -> httpx2.Response:
        return obtain_token(two_servers[n % 2], username="alice", password=PASSWORD)

    assert guess_in_parallel(right, 8) == {200: 8}
    assert failed_attempts() == 0
