"""What doctor says about client documents."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.utils import timezone
from oauth2_provider.cimd import CIMDError
from oauth2_provider.settings import oauth2_settings

from accounts.models import DocumentCopy, OAuthClient
from accounts.oauth.clients.document_failures import DocumentFailure, FetchFailed
from accounts.oauth.clients.document_report import document_lines

pytestmark = pytest.mark.django_db
TODAY = timezone.localdate()
SILENT = DocumentFailure("timeout", "silent.example")
ANSWERS: dict[str, Any] = {
    "equal": {"a": 1},
    "differs": {"a": 2},
    "silent": FetchFailed(SILENT),
    "broken": CIMDError("it is not JSON"),
}


@pytest.fixture(autouse=True)
def copies(monkeypatch: Any) -> None:
    """One copy for each answer of its host, 0, 1, 2 and 3 days old."""
    DocumentCopy.objects.all().delete()
    for days, name in enumerate(ANSWERS):
        DocumentCopy.objects.create(
            client_id=f"https://{name}.example/c.json",
            name=name,
            document={"a": 1},
            read_on=TODAY - timedelta(days=days),
        )

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            answer = ANSWERS[client_id[8:].partition(".")[0]]
            if isinstance(answer, Exception):
                raise answer
            return answer, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)


def lines() -> dict[str, str]:
    """Name of the copy -> its line."""
    found = [line.removeprefix("note: ").split(": ", 1) for line in document_lines()]
    return {line[0]: line[1] for line in found}


def test_each_copy_has_a_line_with_reach_and_age() -> None:
    DocumentCopy.objects.filter(name="differs").update(enabled=False)
    used = DocumentCopy.objects.get(name="silent")
    OAuthClient.objects.create(client_id=used.client_id, document_copy=used)
    found = lines()
    day = [TODAY - timedelta(days=number) for number in range(4)]
    assert found == {
        "equal": "Its document can be fetched; the copy is equal."
        f" The copy of {day[0]} (0 days old) is not used.",
        "differs": "Its document can be fetched and differs: fetch the copy again."
        f" The copy of {day[1]} (1 day old) is switched off.",
        "silent": "silent.example did not answer this server in time."
        f" The copy of {day[2]} (2 days old) is used.",
        "broken": "The client's document is not valid: it is not JSON."
        f" The copy of {day[3]} (3 days old) is not used.",
    }


def test_eight_documents_are_fetched_at_the_same_time(monkeypatch: Any) -> None:
    """Eight silent hosts delay the report by the time of one."""
    DocumentCopy.objects.all().delete()
    for number in range(8):
        name = f"https://{number}.example/c.json"
        DocumentCopy.objects.create(
            client_id=name, name=str(number), document={}, read_on=TODAY
        )
    all_here = Barrier(8)

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            all_here.wait(5)
            return {}, 300

    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    assert [*lines()] == [*"01234567"]


@pytest.mark.parametrize(
    ("enabled", "used", "said"),
    [
        (True, True, "is used"),
        (True, False, "is not used"),
        (False, True, "is switched off"),
        (False, False, "is switched off"),
    ],
)
def test_a_copy_that_is_switched_off_is_not_called_used(
    enabled: bool, used: bool, said: str
) -> None:
    DocumentCopy.objects.exclude(name="equal").delete()
    DocumentCopy.objects.update(enabled=enabled)
    copy = DocumentCopy.objects.get()
    if used:
        OAuthClient.objects.create(client_id=copy.client_id, document_copy=copy)
    assert lines()["equal"].endswith(f"(0 days old) {said}.")


def test_nothing_is_fetched_if_that_is_switched_off(settings: Any) -> None:
    settings.FETCH_CLIENT_DOCUMENTS = False
    assert all("FETCH_CLIENT_DOCUMENTS" in line for line in lines().values())


def test_without_metadata_documents_there_is_nothing_to_say(monkeypatch: Any) -> None:
    monkeypatch.setattr(oauth2_settings, "CIMD_ENABLED", False)
    assert lines() == {}
