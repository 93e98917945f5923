"""Mail: sent after the answer, by two threads, and built on ISSUER_URL.

A mail server that is slow or away delays nobody. A mail that cannot be sent is logged
and audited.
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
"""Mails that wait; more are not sent."""
THREADS = 2
DRAIN_SECONDS = 8.0
"""Seconds in which what waits is sent when the server stops; deploy/ allows 10."""

Work = Callable[[], None]

_local = threading.local()


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """Work to be done after the answer: usually one mail."""

    about: str
    """The kind of mail, as the audit names it."""
    work: Work
    actor: Any = None
    address: str = ""

    def run(self) -> None:
        """Do it; whatever goes wrong is this mail's matter alone."""
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
            logger.error("That is not in the audit: %s", error)


class Mailer:
    """Two threads and the jobs that wait for them, while the server runs."""

    def __init__(self) -> None:
        self.jobs: Queue[QueuedMail | None] = Queue(QUEUE_SIZE)
        self.running_jobs: list[QueuedMail] = []
        self.running = False

    def start(self) -> None:
        """Begin to take jobs."""
        self.running = True
        for number in range(THREADS):
            name = f"portico-mail-{number}"
            threading.Thread(target=self.serve, name=name, daemon=True).start()

    def serve(self) -> None:
        """Do one job after another until there is a None."""
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
        """Have it done; at once where no server runs (commands, tests)."""
        if not self.running:
            job.run()
            return
        try:
            self.jobs.put_nowait(job)
        except Full:
            job.failed(f"{QUEUE_SIZE} mails wait already")

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Send what waits; what is left after `seconds` counts as not sent."""
        self.running = False
        ends = time.monotonic() + seconds
        with self.jobs.all_tasks_done:
            while self.jobs.unfinished_tasks and time.monotonic() < ends:
                self.jobs.all_tasks_done.wait(ends - time.monotonic())
        for job in [*self.running_jobs, *self.drain_queue()]:
            job.failed("the server stopped")
        for _ in range(THREADS):
            self.jobs.put(None)

    def drain_queue(self) -> list[QueuedMail]:
        """The jobs that nobody has begun, taken out."""
        found: list[QueuedMail] = []
        try:
            while job := self.jobs.get_nowait():
                found.append(job)
                self.jobs.task_done()
        except Empty:
            pass
        return found


MAILER = Mailer()


def run_after_response(
    about: str, work: Work, *, actor: Any = None, request: Any = None
) -> None:
    """Have `work` done once the answer of this request has left, in its language.

    Done before, it would tell by the time it takes whether there is an account.
    """
    job = QueuedMail(about, in_current_language(work), actor, client_address(request))
    if getattr(_local, "working", False):
        job.run()
    elif context.request is None:
        MAILER.put(job)
    else:
        pending_jobs().append(job)


def send(message: EmailMessage, about: str, *, actor: Any, request: Any) -> None:
    """Send a mail that is built, after the answer; on record either way."""

    def work() -> None:
        refuse_in_transaction()
        release_connections()
        message.send()
        address = client_address(request)
        record("mail.sent", object=about, actor=actor, address=address)

    run_after_response(about, work, actor=actor, request=request)


def pending_jobs() -> list[QueuedMail]:
    """The jobs of the request that this thread serves."""
    if not hasattr(_local, "pending_jobs"):
        _local.pending_jobs = []
    found: list[QueuedMail] = _local.pending_jobs
    return found


def response_sent(**kwargs: Any) -> None:
    """The answer has left."""
    jobs = pending_jobs()
    while jobs:
        MAILER.put(jobs.pop(0))


def connect_mail() -> None:
    """Hear of answers that have left."""
    request_finished.connect(response_sent, dispatch_uid="portico-mail")


def in_current_language(work: Work) -> Work:
    """`work` in the language of who asks now."""
    language = translation.get_language()

    def run() -> None:
        with translation.override(language):
            work()

    return run


def mail_request(request: HttpRequest | None) -> HttpRequest:
    """What mails may know of a request: who asked, and the issuer's own host."""
    made = HttpRequest()
    made.method, made.path = "GET", "/"
    made.META["HTTP_HOST"] = urlsplit(settings.ISSUER_URL).netloc
    for name in ("REMOTE_ADDR", "HTTP_USER_AGENT"):
        made.META[name] = request.META.get(name, "") if request else ""
    made.user = getattr(request, "user", None) or AnonymousUser()
    use_issuer_url(made)
    return made


def headers() -> dict[str, str]:
    """Message-ID at the issuer; by itself it would name this machine."""
    return {"Message-ID": make_msgid(domain=urlsplit(settings.ISSUER_URL).hostname)}
