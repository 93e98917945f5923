"""Mails: built on ISSUER_URL, sent after the response, failures audited."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from allauth.account.models import EmailAddress

from accounts.models import AuditEvent, SignInProvider, User
from tests.flows.mailbox import Mailbox, mailbox
from tests.support.html_browser import Browser
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, oidc_provider
from tests.support.server import Portico, running_server
from tests.support.silent_hosts import silent_host
from tests.support.users import PASSWORD, make_user

pytestmark = [pytest.mark.usefixtures("default_users"), pytest.mark.once]
DORA = "dora.mail@example.com"


@contextmanager
def mailing(folder: Path, port: int) -> Iterator[Portico]:
    """A server that sends its mails there."""
    make_user("dora")
    User.objects.filter(username="dora").update(email=DORA)
    where = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(port), "EMAIL_TLS": "none"}
    with running_server(folder, **where) as running:
        yield running


@pytest.fixture(scope="module")
def mail_server() -> Iterator[Mailbox]:
    with mailbox() as server:
        yield server


@pytest.fixture(scope="module")
def sender(rows: None, folder: Path, mail_server: Mailbox) -> Iterator[Portico]:
    """A server that sends its mails to it."""
    with mailing(folder, mail_server.port) as running:
        yield running


@pytest.fixture
def empty_mailbox(mail_server: Mailbox) -> Mailbox:
    """The mail server, emptied and fast."""
    mail_server.pause, mail_server.refuses = 0.0, False
    mail_server.mails.clear()
    return mail_server


@contextmanager
def visitor(server: Portico, host: str = "") -> Iterator[Browser]:
    """A browser that sends another Host header."""
    with Browser(server.url) as browser:
        if host:
            browser.http.headers["host"] = host
        yield browser


def reset_seconds(browser: Browser, address: str) -> float:
    """Ask for a new password; seconds until the response."""
    browser.open("/accounts/password/reset/")
    form = browser.form("email")
    browser.http.follow_redirects = False
    started = time.monotonic()
    browser.submit(form, email=address)
    took = time.monotonic() - started
    browser.http.follow_redirects = True
    assert browser.page.status_code == 302, browser.page.text
    return took


@pytest.mark.spec("every link in a mail begins with ISSUER_URL")
def test_mails_are_built_on_the_issuer(sender: Portico, empty_mailbox: Mailbox) -> None:
    """The Host header has no effect on any mail or part of it."""
    for host in ("localhost:6666", f"localhost:{sender.port}"):
        with visitor(sender, host) as browser:
            reset_seconds(browser, DORA)
            browser.open("/accounts/login/?next=/accounts/password/change/")
            form = browser.form("password")
            browser.submit(form, login="dora", password=PASSWORD)
            form = browser.form("oldpassword")
            new = dict.fromkeys(("password1", "password2"), PASSWORD)
            browser.submit(form, oldpassword=PASSWORD, **new)
    mails = [mail.as_string() for mail in empty_mailbox.expect(4)]
    kinds = "\n".join(str(mail["subject"]) for mail in empty_mailbox.mails)
    assert "Password Reset" in kinds and "Password Changed" in kinds
    for text in mails:
        assert "localhost" not in text.replace("portico@localhost", ""), text
        assert sender.host in text
        assert all(a.startswith(sender.url) for a in re.findall(r"https?://\S+", text))


OLD, NEW = "old@corp.example", "new@corp.example"


def links_to(
    sender: Portico, empty_mailbox: Mailbox, *others: str, known: str
) -> set[str]:
    """Who gets mail once links for all these were asked for, `known` last."""
    empty_mailbox.mails.clear()
    with visitor(sender) as browser:
        for address in (*others, known, known):
            reset_seconds(browser, address)
    return {str(mail["to"]) for mail in empty_mailbox.expect(2)}


def test_password_links_go_to_the_accounts_own_address_only(
    sender: Portico, empty_mailbox: Mailbox
) -> None:
    """allauth has a table of addresses, which nothing here keeps up to date."""
    dora = User.objects.get(username="dora")
    closed, open_ = {"is_active": False}, {"is_active": True}
    User.objects.filter(username="bob").update(email="bob@corp.example", **closed)
    for address, verified in ((OLD, True), (NEW, False)):
        EmailAddress.objects.create(
            user=dora, email=address, verified=verified, primary=verified
        )
    others = (OLD, NEW, "bob@corp.example")
    try:
        assert links_to(sender, empty_mailbox, *others, known=DORA) == {DORA}
        assert links_to(sender, empty_mailbox, known=DORA.upper()) == {DORA}
    finally:
        EmailAddress.objects.filter(user=dora).delete()
        User.objects.filter(username="bob").update(email="", **open_)


def test_a_replaced_address_gets_no_password_link(
    sender: Portico, empty_mailbox: Mailbox
) -> None:
    """The account signed up at a provider; an administrator changed its address."""
    with oidc_provider() as provider, mailed_provider(provider.url, sign_up=True):
        provider.person = {"sub": "b-1", "preferred_username": "boss"}
        provider.person |= {"email": OLD, "email_verified": True}
        with visitor(sender) as browser:
            browser.open("/accounts/login/?next=/portal/")
            form = next(f for f in browser.forms if "/oidc/mailed/" in f.action)
            browser.submit(form)
        boss = User.objects.get(username="boss")
        try:
            assert boss.email == OLD
            assert links_to(sender, empty_mailbox, known=OLD) == {OLD}
            with Browser(sender.url) as carol:
                page = f"/admin/accounts/user/{boss.pk}/change/"
                carol.sign_in("carol").save(page, email=NEW)
            assert links_to(sender, empty_mailbox, OLD, OLD, known=NEW) == {NEW}
            assert not EmailAddress.objects.filter(user=boss).exists()
        finally:
            boss.delete()


@contextmanager
def mailed_provider(issuer: str, **options: Any) -> Iterator[None]:
    """A button for this provider on the sign-in page."""
    row = SignInProvider(
        slug="mailed", name="Mailed", issuer=issuer, client_id=CLIENT_ID, **options
    )
    row.set_secret(CLIENT_SECRET)
    row.save()
    try:
        yield
    finally:
        row.delete()


def test_redirects_are_built_on_the_issuer(server: Portico) -> None:
    """A provider returns to the issuer's host, where sign-in has to begin."""
    with oidc_provider() as provider, mailed_provider(provider.url):
        with visitor(server, "127.0.0.1:6666") as browser:
            target = provider_redirect(browser)
            assert f"redirect_uri=http%3A%2F%2F127.0.0.1%3A{server.port}" in target
        with visitor(server, f"localhost:{server.port}") as browser:
            target = provider_redirect(browser)
            assert target == f"{server.url}/accounts/login/?next=%2Fportal%2F"
            policy = browser.open("/accounts/login/").page.headers
            assert "form-action" not in policy["content-security-policy"]


def provider_redirect(browser: Browser) -> str:
    """Press the provider's button; the redirect target."""
    browser.open("/accounts/login/?next=/portal/")
    form = next(f for f in browser.forms if "/oidc/mailed/" in f.action)
    browser.http.follow_redirects = False
    browser.submit(form)
    browser.http.follow_redirects = True
    assert browser.page.status_code == 302, browser.page.text
    return str(browser.page.headers["location"])


@pytest.mark.spec("known and unknown mail addresses take the same time")
def test_response_times_do_not_reveal_accounts(
    sender: Portico, empty_mailbox: Mailbox
) -> None:
    """The mail server answers slowly."""
    empty_mailbox.pause = 0.5
    times: dict[str, list[float]] = {DORA: [], "nobody@example.com": []}
    with visitor(sender) as browser:
        for _ in range(6):
            for address, took in times.items():
                took.append(reset_seconds(browser, address))
        known, unknown = (median(took) for took in times.values())
        assert abs(known - unknown) < 0.05 and max(times[DORA]) < 0.4, times
    empty_mailbox.pause = 0.0
    empty_mailbox.expect(6)


def test_waiting_mails_are_sent_at_shutdown(
    folder: Path, empty_mailbox: Mailbox
) -> None:
    """The stop is bounded although the mail server is slow."""
    empty_mailbox.pause = 0.4
    with mailing(folder, empty_mailbox.port) as server, visitor(server) as browser:
        for _ in range(6):
            reset_seconds(browser, DORA)
        assert len(empty_mailbox.mails) < 6
    assert len(empty_mailbox.mails) == 6


def failed_since(last: int, number: int) -> list[AuditEvent]:
    """Wait for events of failed mails."""
    ends = time.monotonic() + 30
    found: Any = AuditEvent.objects.filter(action="mail.failed", id__gt=last)
    while found.count() < number and time.monotonic() < ends:
        time.sleep(0.05)
    return list(found)


def newest() -> int:
    """The id of the last event."""
    found = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    return found or 0


def test_a_refused_mail_is_logged_and_audited(
    sender: Portico, empty_mailbox: Mailbox
) -> None:
    """The page does not change."""
    last, empty_mailbox.refuses = newest(), True
    with visitor(sender) as browser:
        reset_seconds(browser, DORA)
    event = failed_since(last, 1)[0]
    assert event.object == "password_reset_key: not sent"
    assert "not here" in event.reason and event.address == "127.0.0.1"
    log = sender.log.read_text()
    assert "A mail (password_reset_key) could not be sent" in log
    assert DORA not in log


def test_a_silent_mail_server_delays_nothing(folder: Path) -> None:
    """Neither a request nor the shutdown waits for it."""
    last = newest()
    with silent_host() as nobody, mailing(folder, nobody.port) as server:
        with visitor(server) as browser:
            assert max(reset_seconds(browser, DORA) for _ in range(4)) < 2
        started = time.monotonic()
        server.process.terminate()
        server.process.wait(15)
        assert time.monotonic() - started < 12
    assert len(failed_since(last, 4)) >= 4
