"""Sends one delivery and stores the result. No transaction is open meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from smtplib import SMTPException
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage

from accounts.audit.record import record
from accounts.crypto.encryption import KeyUnreadable
from accounts.http.outbound_calls import refuse_in_transaction, release_connections
from accounts.models import AuditFeed, Delivery, NotificationChannel
from accounts.models.notifications.channels import ChannelKind
from accounts.models.notifications.kinds import TEST
from accounts.notifications import contents, webhooks
from accounts.notifications.webhooks import NotSent
from accounts.parsing.text import one_line

logger = logging.getLogger(__name__)


def attempt_delivery(delivery: Delivery) -> bool:
    """Send a claimed delivery; stores and returns whether it arrived."""
    refuse_in_transaction()
    send = SENDERS[ChannelKind(delivery.channel.kind)]
    try:
        result = result_of_sending(lambda: send(delivery))
    except NotSent as error:
        not_delivered(delivery, str(error))
        return False
    delivery.delivered(result)
    return True


def result_of_sending(send: Callable[[], str]) -> str:
    """The result of `send`. Raises NotSent, whatever fails."""
    try:
        return send()
    except NotSent:
        raise
    except KeyUnreadable as error:
        text = "KEY_ENCRYPTION_KEY cannot decrypt it: enter the URL, renew the secret."
        raise NotSent(text) from error
    except Exception as error:
        logger.exception("A notification could not be built")
        raise NotSent(f"It could not be built: {type(error).__name__}") from error


def not_delivered(delivery: Delivery, why: str) -> None:
    channel = delivery.channel.name
    logger.warning("%s was not delivered to %s: %s", delivery.kind, channel, why)
    delivery.failed(why)


def send_next() -> bool:
    """Claim and send the next delivery that is due; False if there is none."""
    return send_one() is not None


def send_one() -> Delivery | None:
    """The next delivery that is due, after an attempt; None if there is none."""
    found = Delivery.objects.all().claim()
    if found is not None:
        attempt_delivery(found)
    return found


def send_again(delivery: Delivery, actor: Any, request: Any = None) -> None:
    """Make a delivery due now, with all attempts, and record who asked for it."""
    delivery.send_again()
    record(
        "notification.resent",
        actor=actor,
        request=request,
        object=f"{delivery.kind} to {delivery.channel}",
        subject=delivery.channel,
    )


def send_audit_batch() -> bool:
    """Send the next batch of a channel's audit feed; False if there is none."""
    feeds = AuditFeed.objects.all()
    feed = feeds.claim() if feeds.follow_channels() else None
    if feed is None:
        return False
    refuse_in_transaction()
    try:
        feed.delivered(result_of_sending(lambda: send_events(feed)))
    except NotSent as error:
        channel = feed.channel.name
        logger.warning("Audit events were not delivered to %s: %s", channel, error)
        feed.failed(str(error))
    return True


def send_events(feed: AuditFeed) -> str:
    body, channel = contents.audit_body(feed), feed.channel
    headers = webhooks.signed_headers(channel.secret, feed.message_id, body)
    return webhooks.post_webhook(channel.url, body, headers)


def send_test(channel: NotificationChannel) -> Delivery:
    """Send a test now, whether or not the channel is enabled; returns the delivery."""
    found = Delivery(channel=channel, kind=TEST.name)
    found.payload = {"object": channel.name}
    found.attempts_now()
    attempt_delivery(found)
    return found


def send_signed(delivery: Delivery) -> str:
    body, channel = contents.event_body(delivery), delivery.channel
    headers = webhooks.signed_headers(channel.secret, delivery.message_id, body)
    return webhooks.post_webhook(channel.url, body, headers)


def send_to_slack(delivery: Delivery) -> str:
    return webhooks.post_webhook(delivery.channel.url, contents.for_slack(delivery), {})


def send_mail(delivery: Delivery) -> str:
    """One mail to all addresses. Raises NotSent."""
    if settings.EMAIL_BACKEND.endswith("dummy.EmailBackend"):
        raise NotSent("Portico has no mail server: set EMAIL_HOST.")
    subject, body = contents.for_mail(delivery)
    # Each attempt has the same ID, so that mailboxes may drop a repetition.
    host = urlsplit(settings.ISSUER_URL).hostname
    headers = {"Message-ID": f"<{delivery.message_id}@{host}>"}
    mail = EmailMessage(subject, body, to=delivery.channel.addresses, headers=headers)
    release_connections()
    try:
        mail.send()
    except (OSError, SMTPException) as error:
        raise NotSent(one_line(f"The mail server: {error}", 200)) from error
    return "handed to the mail server"


SENDERS: dict[ChannelKind, Callable[[Delivery], str]] = {
    ChannelKind.MAIL: send_mail,
    ChannelKind.SLACK: send_to_slack,
    ChannelKind.WEBHOOK: send_signed,
}
