"""What each kind of notification says, compared with `outlines/`.

After an intended change, write the files again with `NEW_OUTLINES=1`, and read the
difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation

from accounts.models import Delivery, NotificationChannel
from accounts.models.notifications.kinds import KINDS
from accounts.notifications.contents import event_body, for_mail, for_slack
from tests.support.outlines import compare

pytestmark = pytest.mark.once
DATA = {
    "at": "2030-01-02T03:04:05+00:00",
    "request_id": "r1",
    "event_id": 7,
    "subject": "user:7",
    "object": "the object",
    "address": "192.0.2.7",
    "reason": "the reason",
    "actor": "the actor",
    "client": "the client",
    "client_id": "client-1",
    "count": 3,
    "names": "the names",
    "until": "2030-01-03T00:00:00+00:00",
    "problem": "The problem.",
    "fix": "Do this.",
}


def contents(kind: str) -> str:
    """The mail, the message to Slack and the body for programs."""
    channel = NotificationChannel(name="Team")
    sent = Delivery(channel=channel, kind=kind, payload=DATA)
    subject, body = for_mail(sent)
    slack = json.loads(for_slack(sent))["text"]
    program = json.dumps(json.loads(event_body(sent)), sort_keys=True)
    return "\n".join([kind, subject, body, slack, program, str(KINDS[kind].label), ""])


@pytest.mark.parametrize("language", ["en", "ko"])
def test_notifications_say_what_they_said(settings: Any, language: str) -> None:
    settings.ISSUER_URL = "https://portico.example.com"
    settings.PAGE_LANGUAGE = language
    with translation.override(language):
        text = "\n".join(contents(kind) for kind in KINDS)
    compare({"contents.txt": text}, Path(__file__).parent / "outlines" / language)
