"""`manage.py send_notifications [--retry-failed] [--no-look] [--json]`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management import BaseCommand

from accounts.management.arguments import ACTOR
from accounts.models import Delivery
from accounts.models.notifications.deliveries import DeliveryState
from accounts.notifications.occasions import look_around
from accounts.notifications.sending import send_again, send_audit_batch, send_one


class Command(BaseCommand):
    """Look for occasions, then send what is due; servers do the same meanwhile."""

    help = "Send the notifications that are due; for cron or a systemd timer."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--retry-failed",
            action="store_true",
            help="Also send those again that failed after all attempts.",
        )
        parser.add_argument(
            "--no-look",
            action="store_true",
            help="Do not look for ending roles and failing checks first.",
        )
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["retry_failed"]:
            failed = Delivery.objects.filter(state=DeliveryState.FAILED)
            for row in failed.select_related("channel"):
                send_again(row, ACTOR)
        added = 0 if options["no_look"] else look_around()
        counts = {"added": added, **send_all(), **waiting_deliveries()}
        if options["json"]:
            self.stdout.write(json.dumps(counts))
            return
        text = (
            "{delivered} delivered, {not_delivered} not delivered, "
            "{audit_batches} batches of audit events tried, {waiting} waiting."
        )
        self.stdout.write(text.format(**counts))


def send_all() -> dict[str, int]:
    """Send until nothing is due; counts what arrived and what did not.

    A delivery that did not arrive is due again half a minute later at the earliest.
    """
    counts = {"delivered": 0, "not_delivered": 0, "audit_batches": 0}
    while (row := send_one()) is not None:
        row.refresh_from_db(fields=["state"])
        arrived = row.state == DeliveryState.DELIVERED
        counts["delivered" if arrived else "not_delivered"] += 1
    while send_audit_batch():
        counts["audit_batches"] += 1
    return counts


def waiting_deliveries() -> dict[str, int]:
    """How many wait for a later attempt, or for a disabled channel."""
    rows = Delivery.objects.filter(state=DeliveryState.WAITING)
    return {"waiting": rows.count()}
