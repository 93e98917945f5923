"""Sends mail after the response, in two threads, with links on ISSUER_URL.

A slow or unreachable mail server therefore delays no response. A mail that cannot be
sent is logged and audited.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import make_msgid
from queue import Empty, Full, Queue
from smtplib import SMTPException
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.core import context
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.mail import EmailMessage
from django.core.signals import request_finished
from django.db import DatabaseError, connections
from django.http import HttpRequest
from django.utils import translation

from accounts.audit.record import record
from accounts.http.client_address import client_address
from accounts.http.issuer_urls import use_issuer_url
from accounts.http.outbound_calls import refuse_in_transaction, release_connections
from accounts.parsing.text import one_line

logger = logging.getLogger(__name__)

QUEUE_SIZE = 500
"""Queued mails; further ones fail and are logged."""
THREADS = 2
DRAIN_SECONDS = 8.0
"""Seconds to send queued mail when the server stops; deploy/ allows 10."""

Work = Callable[[], None]

_local = threading.local()


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """A task to run after the response; it usually sends one mail."""

    about: str
    """The kind of mail, for the audit event."""
    work: Work
    actor: Any = None
    address: str = ""

    def run(self) -> None:
        """Run the task; log and audit every exception, so that the thread survives."""
        try:
            self.work()
        except (OSError, SMTPException) as error:
            self.failed(str(error))
        except Exception as error:
            logger.exception("A mail (%s) could not be built", self.about)
            self.failed(type(error).__name__)

    def failed(self, why: str) -> None:
        """Log and audit that it was not sent."""
        why = one_line(why)
        logger.error("A mail (%s) could not be sent: %s", self.about, why)
        by = {"actor": self.actor, "address": self.address}
        try:
            record("mail.failed", object=f"{self.about}: not sent", reason=why, **by)
        except DatabaseError as error:
            logger.error("The failed mail could not be audited: %s", error)


class Mailer:
    """A queue of mails and the threads that send them while the server runs."""

    def __init__(self) -> None:
        self.jobs: Queue[QueuedMail | None] = Queue(QUEUE_SIZE)
        self.running_jobs: list[QueuedMail] = []
        self.running = False

    def start(self) -> None:
        self.running = True
        for number in range(THREADS):
            name = f"portico-mail-{number}"
            threading.Thread(target=self.serve, name=name, daemon=True).start()

    def serve(self) -> None:
        """Run jobs from the queue until a None arrives."""
        while (job := self.jobs.get()) is not None:
            self.running_jobs.append(job)
            _local.working = True
            try:
                job.run()
            finally:
                connections.close_all()
                self.running_jobs.remove(job)
                self.jobs.task_done()
        self.jobs.task_done()

    def put(self, job: QueuedMail) -> None:
        """Queue the job; run it at once without a server (commands, tests)."""
        if not self.running:
            job.run()
            return
        try:
            self.jobs.put_nowait(job)
        except Full:
            job.failed(f"{QUEUE_SIZE} mails are queued already")

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Send queued mail for `seconds`, then report the rest as failed."""
        self.running = False
        deadline = time.monotonic() + seconds
        with self.jobs.all_tasks_done:
            while self.jobs.unfinished_tasks and time.monotonic() < deadline:
                self.jobs.all_tasks_done.wait(deadline - time.monotonic())
        for job in [*self.running_jobs, *self.drain_queue()]:
            job.failed("the server stopped")
        for _ in range(THREADS):
            self.jobs.put(None)

    def drain_queue(self) -> list[QueuedMail]:
        """Remove and return the jobs that no thread has started."""
        jobs: list[QueuedMail] = []
        try:
            while job := self.jobs.get_nowait():
                jobs.append(job)
                self.jobs.task_done()
        except Empty:
            pass
        return jobs


MAILER = Mailer()


def run_after_response(
    about: str, work: Work, *, actor: Any = None, request: Any = None
) -> None:
    """Run `work` after the response of this request, in its language.

    Before the response, its duration would reveal whether an account exists.
    """
    job = QueuedMail(about, in_current_language(work), actor, client_address(request))
    if getattr(_local, "working", False):
        job.run()
    elif context.request is None:
        MAILER.put(job)
    else:
        pending_jobs().append(job)


def send(message: EmailMessage, about: str, *, actor: Any, request: Any) -> None:
    """Send a rendered mail after the response; success and failure are audited."""

    def work() -> None:
        refuse_in_transaction()
        release_connections()
        message.send()
        address = client_address(request)
        record("mail.sent", object=about, actor=actor, address=address)

    run_after_response(about, work, actor=actor, request=request)


def pending_jobs() -> list[QueuedMail]:
    """The jobs of the request that this thread is serving."""
    if not hasattr(_local, "pending_jobs"):
        _local.pending_jobs = []
    jobs: list[QueuedMail] = _local.pending_jobs
    return jobs


def response_sent(**kwargs: Any) -> None:
    """Queue the jobs of a request whose response was sent (a signal receiver)."""
    jobs = pending_jobs()
    while jobs:
        MAILER.put(jobs.pop(0))


def connect_mail() -> None:
    request_finished.connect(response_sent, dispatch_uid="portico-mail")


def in_current_language(work: Work) -> Work:
    """Wrap `work`, so that it runs in the current language of this thread."""
    language = translation.get_language()

    def run() -> None:
        with translation.override(language):
            work()

    return run


def mail_request(request: HttpRequest | None) -> HttpRequest:
    """A request for mail templates: the user's, but on the issuer's host.

    The Host header of the real request is chosen by the sender.
    """
    for_mail = HttpRequest()
    for_mail.method, for_mail.path = "GET", "/"
    for_mail.META["HTTP_HOST"] = urlsplit(settings.ISSUER_URL).netloc
    for name in ("REMOTE_ADDR", "HTTP_USER_AGENT"):
        for_mail.META[name] = request.META.get(name, "") if request else ""
    for_mail.user = getattr(request, "user", None) or AnonymousUser()
    use_issuer_url(for_mail)
    return for_mail


def site() -> SimpleNamespace:
    """The sender that mails name, as allauth's `current_site`."""
    return SimpleNamespace(name="Portico", domain=settings.ISSUER_URL)


def headers() -> dict[str, str]:
    """Message-ID with the issuer's domain; Django's default reveals the host name."""
    return {"Message-ID": make_msgid(domain=urlsplit(settings.ISSUER_URL).hostname)}
