"""Threads that send notifications while the server runs.

Every process of every host has them. A delivery is claimed in the database, so one of
them sends it; if it is killed, another one sends it again.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from django.db import DatabaseError, connections

from accounts.models.notifications.outbox import on_new_deliveries
from accounts.notifications.occasions import look_around
from accounts.notifications.sending import send_audit_batch, send_next

logger = logging.getLogger(__name__)

THREADS = 2
POLL = 5.0
"""Seconds between two looks for deliveries of other processes, and for retries."""
LOOK_EVERY = 600.0
"""Seconds between two looks for ending roles and failing checks."""
FIRST_LOOK = 30.0
CLOSE_SECONDS = 4.0
"""Seconds for attempts in progress when the server stops. Another process sends again
what is cut short."""


def some_time(seconds: float) -> float:
    """About as long, so that processes take turns."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311


class NotificationWorker:
    """Sends what is due, in THREADS threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running = False
        self.woken = 0
        self.next_look = 0.0
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        self.running = True
        self.next_look = time.monotonic() + some_time(FIRST_LOOK)
        self.threads = [
            threading.Thread(
                target=self.serve,
                args=(number == 0,),
                name=f"portico-notifications-{number}",
                daemon=True,
            )
            for number in range(THREADS)
        ]
        for thread in self.threads:
            thread.start()

    def wake(self) -> None:
        """Look for deliveries now: this process has committed some."""
        with self.changed:
            self.woken += 1
            self.changed.notify_all()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Finish attempts in progress. What waits is sent by others, or later."""
        self.running = False
        self.wake()
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def serve(self, looks: bool) -> None:
        """Wait, then send until nothing is due; one thread also looks around."""
        seen = 0
        while self.running:
            with self.changed:
                self.changed.wait_for(lambda: self.woken > seen, some_time(POLL))  # noqa: B023
                seen = self.woken
            try:
                self.work(looks)
            except DatabaseError as error:
                logger.info("Notifications were not sent: %s", error)
            except Exception:
                logger.exception("Notifications were not sent")
            finally:
                connections.close_all()

    def work(self, looks: bool) -> None:
        if looks and self.running and time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + some_time(LOOK_EVERY)
            look_around()
        while self.running and self.send():
            pass

    def send(self) -> bool:
        """Send a notification and a batch of audit events; False if neither is due."""
        sent = send_next()
        return send_audit_batch() or sent


WORKER = NotificationWorker()
on_new_deliveries(WORKER.wake)
