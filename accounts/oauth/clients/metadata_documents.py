"""Client ID Metadata Documents: when they are fetched, and what follows a failure.

draft-ietf-oauth-client-id-metadata-document-00 3, 4, 6. Only the authorization endpoint
fetches documents, for signed-in users and outside any transaction. At the other
endpoints a client without a row has nothing to redeem.

While a host serves nothing, a copy of its document is used (document_copies.py).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from django.utils.translation import gettext as _
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.audit.record import record
from accounts.http import outbound_calls
from accounts.models import AuditEvent, DocumentCopy, OAuthClient
from accounts.oauth.clients.document_clients import described_client, store_client
from accounts.oauth.clients.document_failures import (
    DocumentFailure,
    failure_of,
    name_only,
)
from accounts.oauth.clients.document_fetcher import SLOTS, host_and_port
from accounts.oauth.clients.key_sets import KeySet, keys_of
from accounts.parsing.text import one_line
from accounts.rate_limits.errors import RateLimited

logger = logging.getLogger(__name__)

COPY_SECONDS = 3600.0
"""Seconds until the host is asked again after a copy of its document was used."""
EVENT_SECONDS = 60.0
"""At most one event per client and this time."""
FAILED = "client.document_failed"


def refresh(client_id: str, request: Any) -> DocumentFailure | None:
    """Fetch the document of a URL client that is unknown or expired.

    If the fetch fails, a stored document stays; without one, a copy is used. Returns
    why the client cannot sign anybody in. Raises RateLimited.
    """
    if not oauth2_settings.CIMD_ENABLED or not cimd.is_cimd_client_id(client_id):
        return None
    try:
        host = host_and_port(client_id)
    except ValueError:
        logger.info("client_id %s is not a valid document URL", one_line(client_id))
        return None
    client = OAuthClient.objects.filter(client_id=client_id).first()
    if client is not None and not needs_document(client):
        return objection_to(client, host)
    try:
        failure = attempt(client_id, host, request)
        if failure is not None:
            failure = after_failure(client_id, client, failure, request)
    except outbound_calls.TooManyOutboundCalls as error:
        text = _("Too many client lookups are in progress. Try again.")
        raise RateLimited(text, 5) from error
    if failure is not None:
        return failure
    stored = OAuthClient.objects.filter(client_id=client_id).first()
    return objection_to(stored, host) if stored is not None else None


def after_failure(
    client_id: str, client: OAuthClient | None, failure: DocumentFailure, request: Any
) -> DocumentFailure | None:
    """Audit the failure and use a copy; None if the client has some document now."""
    copy = stand_in(client_id, client, failure)
    record_failure(client_id, failure, request, copy)
    if copy is not None:
        return None if copy.enabled else replace(failure, copy_off=True)
    fetched = client is not None and client.document_copy_id is None
    return None if fetched else failure


def needs_document(client: OAuthClient) -> bool:
    """Whether the stored document has expired or is a copy that is switched off."""
    return is_expired(client) or client.copy_switched_off


def objection_to(client: OAuthClient, host: str) -> DocumentFailure | None:
    """Why a stored client with a current document cannot be used."""
    if client.registration_source != client.RegistrationSource.CIMD:
        return None
    if client.blocked:
        return DocumentFailure("client_blocked", "")
    if client.host_trusted is False:
        return DocumentFailure("host_blocked", name_only(host))
    if client.document_copy is not None:
        DocumentCopy.objects.filter(pk=client.document_copy.pk).mark_used()
    return None


def attempt(client_id: str, host: str, request: Any) -> DocumentFailure | None:
    """Fetch and store the document; a failure is remembered for a minute.

    Raises TooManyOutboundCalls.
    """
    if not cimd._registration_permitted(request, client_id):
        return DocumentFailure("host_blocked", name_only(host))
    if not settings.FETCH_CLIENT_DOCUMENTS:
        return DocumentFailure("off", name_only(host))
    remembered: DocumentFailure | None = cache.get(cimd._backoff_cache_key(client_id))
    if remembered is not None:
        return remembered
    return fetch_and_store(client_id, host)


def fetch_and_store(client_id: str, host: str) -> DocumentFailure | None:
    """Fetch the document and its keys. No document may cause a 500.

    Raises TooManyOutboundCalls.
    """
    try:
        with SLOTS.slot(host):
            document, seconds = oauth2_settings.CIMD_METADATA_FETCHER().fetch(client_id)
        keys = checked_keys(client_id, document)
        store_client(client_id, document, seconds, keys=keys)
        return None
    except outbound_calls.TooManyOutboundCalls:
        raise
    except cimd.CIMDError as error:
        failure = failure_of(error, host)
    except Exception:
        logger.exception("The document of %s cannot be read", one_line(client_id))
        failure = DocumentFailure("unexpected", name_only(host))
    text = "The document of %s cannot be used: %s"
    logger.warning(text, one_line(client_id), one_line(failure.reason))
    seconds = oauth2_settings.CIMD_FAILURE_BACKOFF_SECONDS
    cache.set(cimd._backoff_cache_key(client_id), failure, seconds)
    return failure


def checked_keys(client_id: str, document: dict[str, Any]) -> KeySet | None:
    """Fetch the keys at the document's `jwks_uri`, if it is valid and has one.

    They take a slot after the document's, because they may be at another host. Raises
    cimd.CIMDError, TooManyOutboundCalls.
    """
    described_client(client_id, document)
    return keys_of(document)


def stand_in(
    client_id: str, client: OAuthClient | None, failure: DocumentFailure
) -> DocumentCopy | None:
    """The copy of a document that its host did not serve; used if it is switched on.

    A client with a document from its host keeps that one. A copy whose keys cannot be
    fetched is no help. Raises TooManyOutboundCalls.
    """
    fetched = client is not None and client.document_copy_id is None
    if fetched or not failure.unavailable:
        return None
    copy: DocumentCopy | None = DocumentCopy.objects.filter(client_id=client_id).first()
    if copy is not None and copy.enabled:
        try:
            keys = checked_keys(client_id, copy.document)
        except cimd.CIMDError as error:
            text = "The copy of %s has no keys: %s"
            logger.warning(text, one_line(client_id), one_line(str(error)))
            return None
        store_client(client_id, copy.document, COPY_SECONDS, copy, keys)
        DocumentCopy.objects.filter(pk=copy.pk).mark_used()
    return copy


def record_failure(
    client_id: str, failure: DocumentFailure, request: Any, copy: DocumentCopy | None
) -> None:
    """Audit a failed fetch, at most once in EVENT_SECONDS for a client."""
    name = one_line(client_id)
    since = timezone.now() - timedelta(seconds=EVENT_SECONDS)
    events = AuditEvent.objects.filter(client_id=name, at__gt=since)
    if events.filter(action=FAILED).exists():
        return
    used = copy is not None and copy.enabled
    record(
        FAILED,
        actor=request.user,
        request=request,
        object=f"document of {name}"[:255],
        client_id=name,
        reason=one_line(failure.reason),
        via=f"copy of {copy.read_on}" if copy is not None and used else "",
    )


def is_expired(client: OAuthClient) -> bool:
    """Whether the cached document of a client has expired."""
    source = client.RegistrationSource.CIMD
    if client.registration_source != source or client.cimd_expires_at is None:
        return False
    return bool(timezone.now() > client.cimd_expires_at)
