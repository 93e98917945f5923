"""Which client documents this server can fetch, and which copies it uses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.models import DocumentCopy
from accounts.oauth.clients.document_failures import DocumentFailure, failure_of
from accounts.parsing.text import counted

TOGETHER = 8
"""Documents fetched at the same time; each takes 5 seconds at most."""


def document_lines() -> Iterator[str]:
    """A line for each copy; fetches the documents unless that is switched off."""
    if not oauth2_settings.CIMD_ENABLED:
        return
    copies = list(DocumentCopy.objects.all())
    used = set(DocumentCopy.objects.in_use().values_list("pk", flat=True))
    with ThreadPoolExecutor(TOGETHER) as pool:
        results = list(pool.map(live_document, [copy.client_id for copy in copies]))
    for copy, result in zip(copies, results, strict=True):
        yield f"note: {copy}: {fetch_result(copy, result)} {age(copy, copy.pk in used)}"


def live_document(client_id: str) -> dict[str, Any] | DocumentFailure:
    """The document at this URL, or why this server has none."""
    host = urlsplit(client_id).netloc
    if not settings.FETCH_CLIENT_DOCUMENTS:
        return DocumentFailure("off", host)
    try:
        fetcher = oauth2_settings.CIMD_METADATA_FETCHER()
        document: dict[str, Any] = fetcher.fetch(client_id)[0]
        return document
    except cimd.CIMDError as error:
        return failure_of(error, host)


def fetch_result(copy: DocumentCopy, result: dict[str, Any] | DocumentFailure) -> str:
    """What a fetch of the document says about its copy."""
    if isinstance(result, DocumentFailure):
        return result.text()
    if result == copy.document:
        return "Its document can be fetched; the copy is equal."
    return "Its document can be fetched and differs: fetch the copy again."


def age(copy: DocumentCopy, used: bool) -> str:
    """How old the copy is, and whether a client uses it."""
    days = (timezone.localdate() - copy.read_on).days
    verb = "is used" if used else "is not used"
    verb = verb if copy.enabled else "is switched off"
    return f"The copy of {copy.read_on} ({counted(days, 'day')} old) {verb}."
