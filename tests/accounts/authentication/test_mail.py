"""Mail after the response: queued, sent, or reported as failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from smtplib import SMTPException
from typing import Any

import pytest
from allauth.account.forms import ResetPasswordForm
from allauth.account.models import EmailAddress
from allauth.core import context
from django.contrib.auth.models import AnonymousUser
from django.core import mail as django_mail
from django.core.mail import EmailMessage
from django.core.signals import request_finished
from django.db import DatabaseError, connections
from django.test import RequestFactory
from django.utils import translation

from accounts.authentication import mail
from accounts.authentication.adapters import ResetForm
from accounts.authentication.mail import Mailer, QueuedMail
from accounts.models import AuditEvent
from tests.support.users import account


@pytest.fixture(autouse=True)
def no_jobs() -> Iterator[None]:
    """Without jobs of other tests; none may be left behind."""
    mail.pending_jobs().clear()
    yield
    assert mail.pending_jobs() == []


def job(work: Any, about: str = "reset") -> QueuedMail:
    return QueuedMail(about, work, "alice", "192.0.2.7")


def raises(error: Exception) -> Any:
    def work(*args: Any, **kwargs: Any) -> None:
        raise error

    return work


def failed() -> AuditEvent:
    return AuditEvent.objects.get(action="mail.failed")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("not\nhere"), "not here"),
        (SMTPException("refused"), "refused"),
        (KeyError("a secret"), "KeyError"),
    ],
)
def test_a_mail_that_fails_is_recorded(
    db: None, error: Exception, reason: str, caplog: Any
) -> None:
    """The thread survives; an unexpected error's text stays in the log."""
    with caplog.at_level(logging.ERROR):
        job(raises(error)).run()
    event = failed()
    assert (event.object, event.reason) == ("reset: not sent", reason)
    assert (event.actor, event.address) == ("alice", "192.0.2.7")
    assert f"A mail (reset) could not be sent: {reason}" in caplog.text
    assert ("could not be built" in caplog.text) == isinstance(error, KeyError)


def test_a_failure_without_a_database_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(mail, "record", away)
    job(raises(OSError("no route"))).run()
    assert "The failed mail could not be audited: away" in caplog.text


def test_a_sent_mail_is_recorded(alice: Any) -> None:
    """With its kind, its actor and the address."""
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    message = EmailMessage("subject", "body", to=["dora@example.com"])
    mail.send(message, "reset", actor=alice, request=request)
    assert [m.subject for m in django_mail.outbox] == ["subject"]
    event = AuditEvent.objects.get(action="mail.sent")
    assert (event.actor, event.object) == ("alice", "reset")
    assert event.address == "192.0.2.7"


def test_a_mail_is_sent_without_connections_to_the_database(
    alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in no transaction: a mail server may take long. A failure is recorded."""
    order: list[str] = []

    def send(message: EmailMessage) -> None:
        order.append("sent")
        raise OSError("refused")

    monkeypatch.setattr(EmailMessage, "send", send)
    for name in ("refuse_in_transaction", "release_connections"):
        monkeypatch.setattr(mail, name, lambda name=name: order.append(name))
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    mail.send(EmailMessage("s", "b"), "reset", actor=alice, request=request)
    assert order == ["refuse_in_transaction", "release_connections", "sent"]
    event = failed()
    assert (event.actor, event.address, event.reason) == (
        "alice",
        "192.0.2.7",
        "refused",
    )


def test_a_mail_waits_for_the_response(db: None) -> None:
    """In its order; the signal of a finished request queues it."""
    done: list[int] = []
    request = RequestFactory().get("/")
    with context.request_context(request):
        for number in range(2):
            mail.run_after_response("x", lambda n=number: done.append(n))  # type: ignore[misc]
    assert done == [] and len(mail.pending_jobs()) == 2
    keys = [receiver[0][0] for receiver in request_finished.receivers]
    assert "portico-mail" in keys
    mail.response_sent()
    assert done == [0, 1]


def test_a_queued_mail_that_fails_names_its_request(alice: Any) -> None:
    """With the actor and the address, which are gone after the response."""
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    work = raises(OSError("refused"))
    with context.request_context(request):
        mail.run_after_response("reset", work, actor=alice, request=request)
    mail.response_sent()
    event = failed()
    assert (event.object, event.reason) == ("reset: not sent", "refused")
    assert (event.actor, event.actor_id) == ("alice", alice.pk)
    assert event.address == "192.0.2.7"


def test_a_mail_outside_a_request_is_sent_at_once(db: None) -> None:
    done: list[int] = []
    mail.run_after_response("x", lambda: done.append(1))
    assert done == [1]


def test_a_mail_begun_by_a_mail_is_sent_on_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look-up of the account runs after the response and sends the mail."""
    done: list[int] = []
    monkeypatch.setattr(mail._local, "working", True, raising=False)
    with context.request_context(RequestFactory().get("/")):
        mail.run_after_response("x", lambda: done.append(1))
    assert done == [1]


def test_a_mail_keeps_the_language_of_its_request() -> None:
    spoken: list[str | None] = []
    with translation.override("ko"):
        run = mail.in_current_language(
            lambda: spoken.append(translation.get_language())
        )
    with translation.override("en"):
        run()
    assert spoken == ["ko"]


@pytest.fixture
def closed_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Failures by name instead of rows: other threads see no test transaction."""
    told: list[str] = []

    def failed(self: QueuedMail, why: str) -> None:
        told.append(f"{self.about}: {why}")

    monkeypatch.setattr(QueuedMail, "failed", failed)
    monkeypatch.setattr(connections, "close_all", lambda: told.append("closed"))
    return told


def test_threads_send_queued_mails_until_the_server_stops(
    closed_rows: list[str],
) -> None:
    """Each mail ends with closed connections; then the threads end, too."""
    mailer, done = Mailer(), []
    assert not mailer.running
    before = set(threading.enumerate())
    mailer.start()
    threads = sorted(set(threading.enumerate()) - before, key=lambda t: t.name)
    assert [t.name for t in threads] == ["portico-mail-0", "portico-mail-1"]
    assert all(thread.daemon for thread in threads), "no mail keeps the server alive"
    for number in range(5):
        mailer.put(job(lambda n=number: done.append(n)))
    started = time.monotonic()
    mailer.close(5)
    assert time.monotonic() - started < 4, "no longer than the mails take"
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert sorted(done) == [0, 1, 2, 3, 4] and closed_rows == ["closed"] * 5
    assert mailer.running_jobs == [] and not mailer.running


def test_a_mail_of_a_threads_mail_does_not_wait_for_a_response(
    closed_rows: list[str],
) -> None:
    """Nobody would send it."""
    mailer, done = Mailer(), list[int]()

    def begins_another() -> None:
        with context.request_context(RequestFactory().get("/")):
            mail.run_after_response("x", lambda: done.append(1))

    mailer.start()
    mailer.put(job(begins_another))
    mailer.close(5)
    assert done == [1]


def test_a_stop_reports_what_was_not_sent(closed_rows: list[str]) -> None:
    """Mails in progress and mails in the queue; it waits for a bounded time."""
    mailer, go_on, begun = Mailer(), threading.Event(), threading.Semaphore(0)

    def waits() -> None:
        begun.release()
        go_on.wait(10)

    mailer.start()
    for number in range(3):
        mailer.put(job(waits, f"mail {number}"))
    for _ in range(mail.THREADS):
        assert begun.acquire(timeout=10)
    mailer.close(0.01)
    assert sorted(closed_rows) == [f"mail {n}: the server stopped" for n in range(3)]
    go_on.set()
    mailer.jobs.join()


def test_a_full_queue_refuses_further_mails(closed_rows: list[str]) -> None:
    mailer, done = Mailer(), []
    mailer.running = True
    for number in range(501):
        mailer.put(job(lambda: done.append(1), f"mail {number}"))
    assert closed_rows == ["mail 500: 500 mails are queued already"] and not done
    assert [j.about for j in mailer.drain_queue()] == [f"mail {n}" for n in range(500)]
    assert mailer.drain_queue() == [] and mailer.jobs.unfinished_tasks == 0


def test_a_mails_request_is_on_the_issuers_host(alice: Any, settings: Any) -> None:
    """The Host header is the sender's choice."""
    settings.ISSUER_URL = "https://portico.example:8443"
    settings.ALLOWED_HOSTS = ["portico.example"]
    given: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "lynx"}
    request = RequestFactory().post("/x", HTTP_HOST="evil.example", **given)
    request.user = alice
    found = mail.mail_request(request)
    assert found.build_absolute_uri("/a") == "https://portico.example:8443/a"
    assert found.get_host() == "portico.example:8443"
    assert (found.method, found.path, found.user) == ("GET", "/", alice)
    assert {name: found.META[name] for name in given} == given
    nobody = mail.mail_request(None)
    assert isinstance(nobody.user, AnonymousUser) and nobody.META["REMOTE_ADDR"] == ""
    number = mail.headers()["Message-ID"]
    assert number.endswith("@portico.example>")


def test_the_servers_limits_of_mail() -> None:
    assert (mail.QUEUE_SIZE, mail.THREADS, mail.DRAIN_SECONDS) == (500, 2, 8.0)


def test_a_reset_mail_for_the_account_only(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown or closed account gets none; allauth's own table does not count."""
    settings.ISSUER_URL = "https://portico.example"
    settings.ALLOWED_HOSTS = ["portico.example"]
    monkeypatch.setattr(mail._local, "working", True, raising=False)
    dora = account("dora", email="dora@example.com")
    account("shut", email="shut@example.com", is_active=False)
    EmailAddress.objects.create(user=dora, email="old@example.com", verified=True)
    type(dora).objects.update(password="md5$a$b")
    request = RequestFactory().post("/", HTTP_HOST="evil.example")
    for address in ("nobody", "shut", "old", "dora"):
        form = ResetForm({"email": f"{address}@example.com"})
        assert form.is_valid()
        assert form.save(request) == f"{address}@example.com"
    (sent,) = django_mail.outbox
    assert sent.to == ["dora@example.com"] and "evil" not in str(sent.body)
    assert "https://portico.example/accounts/password/reset/key/" in str(sent.body)
    assert sent.subject.startswith("[Portico] ")
    assert "Thank you for using Portico!\nhttps://portico.example" in str(sent.body)
    event = AuditEvent.objects.get(action="mail.sent")
    assert (event.object, event.actor) == ("password_reset_key", "dora")


def test_a_reset_that_fails_names_the_address(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResetPasswordForm, "save", raises(OSError("away")))
    form = ResetForm({"email": "dora@example.com"})
    assert form.is_valid()
    form.save(RequestFactory().post("/", REMOTE_ADDR="192.0.2.7"))
    event = failed()
    assert (event.object, event.address) == (
        "password_reset_key: not sent",
        "192.0.2.7",
    )
