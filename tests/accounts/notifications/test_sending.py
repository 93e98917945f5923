"""One delivery for each kind of channel, and what is stored of the result."""

from __future__ import annotations

from smtplib import SMTPException
from typing import Any

import pytest
from django.core import mail
from django.db import transaction
from django.utils import timezone

from accounts.http.outbound_calls import CallInTransaction
from accounts.models import AuditEvent, AuditFeed, AuditSeal, Delivery
from accounts.notifications import contents, sending
from accounts.notifications.sending import (
    attempt_delivery,
    send_again,
    send_audit_batch,
    send_next,
    send_test,
)
from accounts.notifications.webhooks import signature
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.webhook_receiver import receiving

pytestmark = pytest.mark.django_db


def state_of(row: Delivery) -> tuple[str, str]:
    row.refresh_from_db()
    return str(row.state), str(row.result)


def test_a_signed_webhook_is_delivered() -> None:
    with receiving() as receiver:
        channel = channel_row(url=receiver.url)
        row = delivery_row(channel)
        assert send_next() and not send_next()
    assert state_of(row) == ("delivered", "HTTP 200")
    _path, headers, body = receiver.got[0]
    assert headers["webhook-id"] == row.message_id
    at = int(headers["webhook-timestamp"])
    expected = signature(channel.secret, row.message_id, at, body)
    assert headers["webhook-signature"] == expected
    assert receiver.bodies[0]["data"]["reason"] == "work"


def test_slack_gets_text_and_no_signature() -> None:
    with receiving() as receiver:
        row = delivery_row(channel_row("slack", receiver.url))
        assert send_next()
    assert state_of(row) == ("delivered", "HTTP 200")
    assert receiver.bodies[0].keys() == {"text"}
    assert "webhook-signature" not in receiver.got[0][1]


def test_a_mail_goes_to_all_addresses(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example:8443"
    to = "a@example.com\nb@example.com"
    row = delivery_row(channel_row("mail", mail_to=to))
    assert send_next()
    assert state_of(row)[0] == "delivered"
    sent = mail.outbox[0]
    assert sent.to == ["a@example.com", "b@example.com"]
    assert sent.subject.startswith("[Portico] Access request: alice requests Admin")
    assert sent.extra_headers["Message-ID"] == f"<{row.message_id}@portico.example>"


def test_a_repetition_has_the_same_id() -> None:
    with receiving(500) as receiver:
        row = delivery_row(channel_row(url=receiver.url))
        send_next()
        assert state_of(row) == ("waiting", "HTTP 500")
        Delivery.objects.update(next_attempt_at=row.created_at)
        send_next()
    assert state_of(row) == ("delivered", "HTTP 200")
    assert receiver.ids == [row.message_id] * 2


class Broken(Exception):
    pass


def test_without_a_mail_server_the_setting_is_named(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    row = delivery_row(channel_row("mail", mail_to="a@example.com"))
    send_next()
    assert "EMAIL_HOST" in state_of(row)[1]


def test_a_refusing_mail_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Any) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(mail.EmailMessage, "send", refuses)
    row = delivery_row(channel_row("mail", mail_to="a@example.com"))
    send_next()
    assert state_of(row) == ("waiting", "The mail server: connection refused")


def test_an_unreadable_key_is_named() -> None:
    channel = channel_row()
    type(channel).objects.update(row_key="another")
    row = delivery_row(channel)
    send_next()
    assert "KEY_ENCRYPTION_KEY" in state_of(row)[1]


def test_a_defect_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(delivery: Any) -> bytes:
        raise Broken("a secret")

    monkeypatch.setattr(contents, "event_body", fails)
    row = delivery_row(channel_row())
    assert send_next()
    assert state_of(row) == ("waiting", "It could not be built: Broken")


def test_a_test_is_sent_at_once_and_logged() -> None:
    with receiving(200, 404) as receiver:
        channel = channel_row(url=receiver.url, enabled=False, events=[])
        first, second = send_test(channel), send_test(channel)
    assert (first.state, first.result) == ("delivered", "HTTP 200")
    assert (second.state, second.result) == ("waiting", "HTTP 404")
    body = receiver.bodies[0]
    assert body["type"] == "test" and channel.name in body["data"]["text"]
    assert Delivery.objects.filter(kind="test", attempts=1).count() == 2


def test_nothing_is_claimed_or_sent_in_a_transaction() -> None:
    row = delivery_row(channel_row())
    with transaction.atomic(), pytest.raises(CallInTransaction):
        send_next()
    row.refresh_from_db()
    assert row.result == ""


def follow(receiver: Any) -> Any:
    """A channel that follows the audit, and two sealed events for it."""
    channel = channel_row(url=receiver.url, events=["audit.events"])
    AuditFeed.objects.all().follow_channels()
    for name in ("one", "two"):
        AuditEvent(action="tool.called", object=name, arguments='{"k": "v"}').save()
    AuditSeal.objects.all().seal()
    return channel


def test_audit_events_arrive_signed_and_in_order() -> None:
    with receiving() as receiver:
        channel = follow(receiver)
        assert send_audit_batch() and not send_audit_batch()
    _path, headers, body = receiver.got[0]
    at = int(headers["webhook-timestamp"])
    expected = signature(channel.secret, headers["webhook-id"], at, body)
    assert headers["webhook-signature"] == expected
    data = receiver.bodies[0]["data"]
    assert [event["object"] for event in data["events"]] == ["one", "two"]
    assert data["cursor"] == data["events"][-1]["id"] and not data["missed"]
    assert "arguments" not in data["events"][0]


def test_refused_audit_events_are_repeated(caplog: Any) -> None:
    with receiving(500) as receiver:
        follow(receiver)
        assert send_audit_batch() and not send_audit_batch()
        assert AuditFeed.objects.get().result == "HTTP 500"
        AuditFeed.objects.update(next_attempt_at=timezone.now())
        assert send_audit_batch()
    assert receiver.ids[0] == receiver.ids[1]
    assert receiver.got[0][2] == receiver.got[1][2]
    assert AuditFeed.objects.get().result == "HTTP 200"


def test_without_a_feed_nothing_is_sent() -> None:
    channel_row(events=["role.ending"])
    assert not send_audit_batch()


@pytest.mark.parametrize("error", [OSError("refused"), SMTPException("not now")])
def test_no_connection_of_the_database_waits_for_a_mail(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A mail server may take minutes; what it says is on one line."""
    done: list[str] = []

    def send(message: Any) -> None:
        done.append("sent")
        raise error

    monkeypatch.setattr(sending, "release_connections", lambda: done.append("released"))
    monkeypatch.setattr(mail.EmailMessage, "send", send)
    row = delivery_row(channel_row("mail", mail_to="a@example.com"))
    assert send_next()
    assert done == ["released", "sent"]
    state, result = state_of(row)
    assert state == "waiting" and result == f"The mail server: {error}"


@pytest.mark.parametrize("kind", ["mail", "slack", "webhook"])
def test_no_channel_is_tried_in_a_transaction(kind: str) -> None:
    channel = channel_row(kind, mail_to="a@example.com" if kind == "mail" else "")
    row = delivery_row(channel)
    with transaction.atomic(), pytest.raises(CallInTransaction):
        attempt_delivery(row)
    assert mail.outbox == [] and state_of(row) == ("waiting", "")


def test_no_batch_is_tried_in_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not built: its events are read outside, too."""
    monkeypatch.setattr(sending, "send_events", lambda feed: pytest.fail("it was"))
    with receiving() as receiver:
        follow(receiver)
        with transaction.atomic(), pytest.raises(CallInTransaction):
            send_audit_batch()


@pytest.mark.parametrize(("status", "arrived"), [(200, True), (500, False)])
def test_an_attempt_says_whether_it_arrived(
    status: int, arrived: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(status) as receiver:
        row = delivery_row(channel_row(url=receiver.url, name="Team"))
        assert attempt_delivery(row) is arrived
    told = "access.requested was not delivered to Team: HTTP 500"
    assert (told in caplog.messages) is not arrived


def test_whoever_sends_again_is_recorded(rf: Any) -> None:
    row = delivery_row(channel_row(name="Team"), attempts=8, state="failed")
    send_again(row, "ann", rf.get("/"))
    assert state_of(row) == ("waiting", "") and row.attempts == 0
    event = AuditEvent.objects.get(action="notification.resent")
    assert (event.actor, event.object) == ("ann", f"access.requested to {row.channel}")
    assert event.subject == f"notificationchannel:{row.channel.pk}"
    assert event.address == "127.0.0.1"
