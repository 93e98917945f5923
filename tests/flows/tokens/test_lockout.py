"""Wrong passwords lock out at every sign-in method; nothing is hashed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from axes.models import AccessAttempt
from django.core.management import CommandError, call_command

from accounts.authentication.lockout import WIDE_FACTOR
from accounts.models import AuditEvent, User
from tests.support.html_browser import Browser
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD

pytestmark = [
    pytest.mark.once,
    pytest.mark.usefixtures("default_users", "without_counts"),
]
PROXY = "127.0.0.1"


@pytest.fixture(scope="module")
def strict_server(rows: None, folder: Path) -> Iterator[Portico]:
    """Three wrong passwords lock out; each test uses its own addresses."""
    with running_server(folder, LOCKOUT_AFTER="3", TRUSTED_PROXIES=PROXY) as running:
        yield running


@pytest.fixture
def without_counts(rows: None) -> None:
    AccessAttempt.objects.all().delete()


def api(
    server: Portico, name: str, password: str, address: str = "192.0.2.1"
) -> httpx2.Response:
    body = {"username": name, "password": password}
    headers = {"x-forwarded-for": address}
    return httpx2.post(
        f"{server.url}/api/token/", json=body, headers=headers, verify=False
    )


def page(
    server: Portico, path: str, field: str, name: str, password: str
) -> httpx2.Response:
    """A sign-in page, from the same address."""
    with Browser(server.url) as browser:
        browser.http.headers["x-forwarded-for"] = "192.0.2.1"
        browser.http.headers["accept"] = "text/html"
        browser.open(path)
        form = browser.form("password")
        return browser.submit(form, **{field: name, "password": password}).page


DOORS: dict[str, Callable[[Portico, str, str], httpx2.Response]] = {
    "api": lambda server, name, word: api(server, name, word),
    "page": lambda server, name, word: page(
        server, "/accounts/login/", "login", name, word
    ),
}


@pytest.mark.spec("RFC 6585 4")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["alice", "nobody-here"])
def test_a_lock_out_applies_at_every_sign_in_method(
    strict_server: Portico, door: str, name: str
) -> None:
    """OAuth 2.1 2.4.1: 429 with Retry-After, with the right password or a wrong one."""
    first = DOORS[door](strict_server, name, "wrong")
    assert first.status_code in (200, 401)
    DOORS[door](strict_server, name.upper(), "wrong")
    assert DOORS[door](strict_server, name, "wrong").status_code == 429
    for other in DOORS.values():
        refused = other(strict_server, name, PASSWORD)
        assert refused.status_code == 429, refused.text
        assert 800 < int(refused.headers["retry-after"]) <= 900
        assert "exist" not in refused.text and "Too many failed" in refused.text
    assert AuditEvent.objects.filter(
        action="user.locked_out", object=name, address="192.0.2.1"
    ).exists()
    assert api(strict_server, name, "wrong", "192.0.2.2").status_code == 401


def test_a_locked_attempt_does_not_prolong_the_lock(strict_server: Portico) -> None:
    """The page keeps no form, with or without a password."""
    for _ in range(3):
        api(strict_server, "alice", "wrong")
    attempt = AccessAttempt.objects.get()
    assert api(strict_server, "alice", PASSWORD).status_code == 429
    again = AccessAttempt.objects.get()
    assert (again.failures_since_start, again.attempt_time) == (3, attempt.attempt_time)
    assert "wrong" not in again.post_data and PASSWORD not in again.get_data


def test_guessing_from_many_addresses_and_for_many_names_is_stopped(
    strict_server: Portico,
) -> None:
    """Ten times the limit locks the account, or the address."""
    AccessAttempt.objects.bulk_create(
        attempt("alice", f"198.51.100.{n}") for n in range(3 * WIDE_FACTOR)
    )
    assert api(strict_server, "alice", PASSWORD).status_code == 429
    assert api(strict_server, "bob", PASSWORD).status_code == 200
    AccessAttempt.objects.bulk_create(
        attempt(f"name-{n}", "192.0.2.66") for n in range(3 * WIDE_FACTOR)
    )
    assert api(strict_server, "bob", PASSWORD, "192.0.2.66").status_code == 429


def attempt(name: str, address: str) -> AccessAttempt:
    return AccessAttempt(
        username=name, ip_address=address, user_agent="-", failures_since_start=1
    )


def test_a_success_resets_the_account_but_not_the_address(
    strict_server: Portico,
) -> None:
    """A user's own sign-in does not reset the count of the address."""
    api(strict_server, "alice", "wrong")
    api(strict_server, "bob", "wrong")
    assert api(strict_server, "alice", PASSWORD).status_code == 200
    assert [row.username for row in AccessAttempt.objects.all()] == ["bob"]


def test_an_administrator_unlocks(strict_server: Portico) -> None:
    """Covers the user list, the list of counts and the command; audited."""
    alice = User.objects.get(username="alice")
    with Browser(strict_server.url) as browser:
        browser.sign_in("carol")
        rows: list[tuple[str, Callable[[], int]]] = [
            ("/admin/accounts/user/", lambda: alice.pk),
            ("/admin/axes/accessattempt/", lambda: AccessAttempt.objects.get().pk),
        ]
        for path, key in rows:
            for _ in range(3):
                api(strict_server, "alice", "wrong")
            assert api(strict_server, "alice", PASSWORD).status_code == 429
            page = browser.act(path, "unlock", key()).page
            assert "1 counter reset" in page.text
            assert api(strict_server, "alice", PASSWORD).status_code == 200
    for _ in range(3):
        api(strict_server, "alice", "wrong")
    call_command("unlock", "Alice", "--address", "192.0.2.9")
    assert api(strict_server, "alice", PASSWORD).status_code == 200
    assert AuditEvent.objects.filter(action="user.unlocked").count() >= 3
    with pytest.raises(CommandError, match="Give a user name"):
        call_command("unlock")
    with pytest.raises(CommandError, match="not an IP address"):
        call_command("unlock", "--address", "everywhere")
