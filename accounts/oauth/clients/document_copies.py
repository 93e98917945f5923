"""Copies of client metadata documents: shipped ones, and their rules.

A copy is used only while the host serves no document at all
(`accounts/oauth/clients/document_failures.py: DocumentFailure.unavailable`).
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.models import DocumentCopy, OAuthClient
from accounts.oauth.clients.document_clients import described_client, store_client
from accounts.oauth.clients.document_failures import DocumentFailure, failure_of
from accounts.oauth.clients.metadata_documents import COPY_SECONDS

SHIPPED = Path(__file__).with_name("shipped_documents.json")


def shipped_copies() -> list[DocumentCopy]:
    """Unsaved rows of the file SHIPPED, a list of {origin, read_on, document}."""
    return [
        DocumentCopy(
            client_id=entry["document"]["client_id"],
            name=entry["document"]["client_name"],
            document=entry["document"],
            source=DocumentCopy.Source.SHIPPED,
            origin=entry["origin"],
            read_on=date.fromisoformat(entry["read_on"]),
        )
        for entry in json.loads(SHIPPED.read_text("utf-8"))
    ]


def add_shipped_copies(sender: Any, **kwargs: Any) -> None:
    """Add new copies and renew older shipped ones after migrate.

    `enabled`, and what an administrator pasted or fetched, stays.
    """
    try:
        # Migrations backwards end without the table.
        kwargs["apps"].get_model("accounts", "DocumentCopy")
    except LookupError:
        return
    rows = DocumentCopy.objects.using(kwargs.get("using"))
    for copy in shipped_copies():
        older = rows.filter(client_id=copy.client_id)
        if not older.exists():
            copy.save(using=kwargs.get("using"))
        older.filter(source=copy.source, read_on__lt=copy.read_on).update(
            name=copy.name,
            document=copy.document,
            origin=copy.origin,
            read_on=copy.read_on,
        )


def check_document(document: Any) -> OAuthClient:
    """The unsaved client of a pasted document. Raises ValidationError.

    A fetched document must meet the same rules.
    """
    try:
        if not isinstance(document, dict):
            raise cimd.CIMDError("it must be a JSON object")
        check_size(document)
        client_id = str(document.get("client_id"))
        cimd._validate_client_id_url(client_id)
        return described_client(client_id, document)
    except cimd.CIMDError as error:
        text = _("The document is not valid: %s.") % str(error).rstrip(".")
        raise ValidationError(text) from error


def check_size(document: dict[str, Any]) -> None:
    """Raises cimd.CIMDError if the document is larger than a fetched one may be."""
    size = len(json.dumps(document, ensure_ascii=False).encode())
    most = oauth2_settings.CIMD_MAX_DOCUMENT_SIZE
    if size > most:
        raise cimd.CIMDError(f"it has {size} bytes; {most} are allowed")


def fetch_copy(copy: DocumentCopy) -> DocumentFailure | None:
    """Replace the copy by the document at its URL; return why that failed.

    Call it outside transactions.
    """
    try:
        fetcher = oauth2_settings.CIMD_METADATA_FETCHER()
        document, _seconds = fetcher.fetch(copy.client_id)
        client = described_client(copy.client_id, document)
    except cimd.CIMDError as error:
        return failure_of(error, urlsplit(copy.client_id).netloc)
    copy.document, copy.name = document, client.name
    copy.source, copy.read_on = DocumentCopy.Source.FETCHED, timezone.localdate()
    copy.origin = copy.client_id
    copy.save()
    reapply(copy)
    return None


def reapply(copy: DocumentCopy) -> None:
    """Give the client that stands on this copy the changed document."""
    if copy.enabled and copy.clients().exists():
        store_client(copy.client_id, copy.document, COPY_SECONDS, copy)
