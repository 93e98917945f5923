"""What notifications say, for people, programs and Slack."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import translation

from accounts.models import Delivery, NotificationChannel
from accounts.notifications.contents import (
    encoded,
    escaped,
    event_body,
    for_mail,
    for_slack,
    page_url,
)

DATA = {
    "at": "2030-01-02T03:04:05+00:00",
    "object": "alice",
    "address": "192.0.2.7",
    "request_id": "r1",
    "event_id": 7,
}
TEXT = "Sign-in is locked after too many failures: alice, from address 192.0.2.7."


def delivery(**data: Any) -> Delivery:
    channel = NotificationChannel(name="Team")
    return Delivery(channel=channel, kind="user.locked_out", payload={**DATA, **data})


@pytest.fixture(autouse=True)
def issuer(settings: Any) -> None:
    settings.ISSUER_URL = "https://portico.example.com"


def test_programs_get_type_time_and_data() -> None:
    """Standard Webhooks, "Payload structure"."""
    url = "https://portico.example.com/admin/axes/accessattempt/?q=alice"
    assert json.loads(event_body(delivery())) == {
        "type": "user.locked_out",
        "timestamp": DATA["at"],
        "data": {
            "object": "alice",
            "address": "192.0.2.7",
            "request_id": "r1",
            "event_id": 7,
            "text": TEXT,
            "url": url,
        },
    }
    assert page_url(delivery()) == url


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<!channel>", "&lt;!channel&gt;"),
        ("<https://evil.example|Open>", "&lt;https://evil.example|Open&gt;"),
        ("a & b &lt;", "a &amp; b &amp;lt;"),
    ],
)
def test_names_are_text_in_slack(name: str, shown: str) -> None:
    """Otherwise a name could mention everybody or show another link."""
    assert escaped(name) == shown
    text = json.loads(for_slack(delivery(object=name)))["text"]
    first, last = text.splitlines()
    assert shown in first and name not in first
    assert last.startswith("<https://portico.example.com/admin/")
    assert last.endswith("|Open in Portico>")


def test_a_name_breaks_no_line() -> None:
    """Not in a subject, where it would be a header, and not in a message."""
    subject, body = for_mail(delivery(object="a\r\nBcc: b@example.com"))
    assert "\n" not in subject and "\r" not in subject
    assert body.splitlines()[0].endswith("192.0.2.7.")


def test_a_mail_has_the_link_and_the_request() -> None:
    subject, body = for_mail(delivery())
    assert subject == f"[Portico] {TEXT}"
    lines = body.splitlines()
    assert lines[0] == TEXT and "https://portico.example.com/admin/" in lines[2]
    assert lines[-1] == "Request ID: r1"


def test_a_subject_is_short_and_the_body_whole() -> None:
    subject, body = for_mail(delivery(object="a" * 300))
    assert len(subject) == len("[Portico] ") + 150
    assert "a" * 300 in body


def test_people_read_their_language_and_programs_english(settings: Any) -> None:
    settings.PAGE_LANGUAGE = "ko"
    assert TEXT not in for_mail(delivery())[1]
    assert TEXT not in for_slack(delivery()).decode()
    assert TEXT in event_body(delivery()).decode()


def test_programs_read_english_whoever_causes_it() -> None:
    with translation.override("ko"):
        found = json.loads(event_body(delivery()))
    assert found["data"]["text"] == TEXT


def test_a_body_has_names_as_they_are() -> None:
    assert encoded({"a": ["\uae40", 1]}) == '{"a":["\uae40",1]}'.encode()
