"""Every answered call is in the audit log, even after a crash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import httpx2
import pytest
from django.db.models import Max

from accounts.models import AuditEvent
from tests.support.mcp_client import McpClient
from tests.support.server import Portico, running_server

pytestmark = pytest.mark.usefixtures("default_users")


def call_until_stopped(
    server: Portico, token: str, stop: Event, number: int
) -> list[str]:
    """Call until the server is gone; the ids of the answered requests."""
    answered: list[str] = []
    with httpx2.Client(timeout=5, verify=False) as http:
        client = McpClient(server, token, http=http)
        call = {"name": "look", "arguments": {}}
        while not stop.is_set():
            name = f"kill-{server.port}-{number}-{len(answered)}"
            try:
                done = client.post("tools/call", call, {"x-request-id": name})
            except httpx2.TransportError:
                break
            if done.status_code == 200:
                answered.append(name)
    return answered


@pytest.mark.spec("every answered call is in the audit log")
def test_every_answered_call_is_audited_after_a_stop(rows: None, folder: Path) -> None:
    """SIGTERM commits waiting events; test_kill.py tries SIGKILL with durable audit."""
    last = AuditEvent.objects.aggregate(last=Max("pk", default=0))["last"]
    with running_server(folder, AUDIT_DURABILITY="batch") as server:
        token, stop = server.token("alice"), Event()
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(call_until_stopped, server, token, stop, number)
                for number in range(4)
            ]
            end = monotonic() + 30
            events = AuditEvent.objects.filter(object="tool look", pk__gt=last)
            while events.count() < 40 and monotonic() < end:
                sleep(0.05)
            server.stop()
            stop.set()
            answered = {name for job in jobs for name in job.result()}
    assert len(answered) >= 30
    assert answered <= set(events.values_list("request_id", flat=True))
