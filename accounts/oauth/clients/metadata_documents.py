"""Client ID Metadata Documents, fetched with the toolkit's fetcher and our rules.

draft-ietf-oauth-client-id-metadata-document-00 3, 4, 6. Only the authorization endpoint
fetches, for signed-in users and outside any transaction. At the other endpoints a
client without a row has nothing to redeem.

While a host serves nothing, a copy of its document is used (document_copies.py).
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import replace
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from django.utils.translation import gettext as _
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.audit.record import record
from accounts.http import outbound_calls
from accounts.models import AuditEvent, DocumentCopy, DocumentHost, OAuthClient
from accounts.oauth.clients.document_clients import store_client
from accounts.oauth.clients.document_failures import (
    DocumentFailure,
    FetchFailed,
    failure_of,
    name_only,
    network_failure,
)
from accounts.parsing.host_names import host_of_document
from accounts.parsing.text import one_line
from accounts.rate_limits.errors import RateLimited

logger = logging.getLogger(__name__)

SLOTS = outbound_calls.Slots(together=8, per_host=2)
"""Limits concurrent fetches; slow hosts occupy at most their own slots."""
UNRESPONSIVE_SECONDS = 30.0
"""Seconds without a new fetch after a host did not answer."""
MAX_UNRESPONSIVE = 1_000
COPY_SECONDS = 3600.0
"""Seconds until the host is asked again after a copy of its document was used."""
EVENT_SECONDS = 60.0
"""At most one event per client and this time."""
FAILED = "client.document_failed"


class HostPolicy:
    """The toolkit's permission class; reads the administrator's list of hosts."""

    def has_permission(self, request: Any, client_id: str) -> bool:
        """Whether the document of this URL may be fetched."""
        try:
            host = host_of_document(client_id)
        except ValueError:
            return False
        return not DocumentHost.objects.filter(host=host, trusted=False).exists()


class UnresponsiveHosts:
    """Hosts that did not answer within the last UNRESPONSIVE_SECONDS; thread-safe."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.lock = Lock()

    def add(self, host: str) -> None:
        """Add a host; drop the oldest beyond MAX_UNRESPONSIVE."""
        with self.lock:
            if len(self.until) >= MAX_UNRESPONSIVE:
                del self.until[next(iter(self.until))]
            self.until[host] = time.monotonic() + UNRESPONSIVE_SECONDS

    def __contains__(self, host: str) -> bool:
        return self.until.get(host, 0.0) > time.monotonic()


UNRESPONSIVE = UnresponsiveHosts()


class DocumentFetcher(cimd.SafeMetadataFetcher):
    """The toolkit's fetcher with one deadline for DNS, connection and response.

    The toolkit's timeout restarts with every byte, and does not cover DNS.
    """

    def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
        """The document and its cache lifetime, seconds. Raises cimd.CIMDError."""
        parts = cimd._validate_client_id_url(client_id)
        try:
            host = host_and_port(client_id)
        except ValueError as error:
            raise cimd.CIMDError("client_id URL has no host name") from error
        if host in UNRESPONSIVE:
            detail = f"{host} did not answer a moment ago"
            raise FetchFailed(DocumentFailure("unreachable", name_only(host), detail))
        seconds = oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS
        try:
            with outbound_calls.call(seconds) as call:
                return self.fetch_from_any_address(parts, call)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            UNRESPONSIVE.add(host)
            raise network_failure(host, error) from error

    def fetch_from_any_address(
        self, parts: Any, call: outbound_calls.OutboundCall
    ) -> tuple[dict[str, Any], int]:
        """The response of the first address that answers.

        The host is resolved once and the connection uses the checked address. A second
        look-up could return another address (DNS rebinding).
        """
        port = parts.port or 443
        failure: Exception = cimd.CIMDError("no address")
        for address in cimd._resolve_and_validate(parts.hostname, port):
            pool = outbound_calls.HTTPSPool(
                host=address,
                port=port,
                timeout=call.left,
                retries=False,
                maxsize=1,
                ssl_context=ssl.create_default_context(),
                server_hostname=parts.hostname,
            )
            try:
                return self.read(pool, parts)
            except urllib3.exceptions.HTTPError as error:
                failure = error
            finally:
                pool.close()
        raise failure

    def read(self, pool: Any, parts: Any) -> tuple[dict[str, Any], int]:
        """Request the document and read it; follows no redirects."""
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        accept = "application/json, application/*+json"
        response = pool.urlopen(
            "GET",
            path,
            headers={"Host": parts.netloc, "Accept": accept},
            redirect=False,
            preload_content=False,
        )
        try:
            if response.status != 200:
                raise FetchFailed(status_failure(parts.hostname, response.status))
            document: tuple[dict[str, Any], int] = self._read_document(response)
            return document
        finally:
            response.release_conn()


def status_failure(host: str, status: int) -> DocumentFailure:
    return DocumentFailure("status", host, f"HTTP status {status}", status)


def resolve_public_addresses(hostname: str, port: int) -> list[str]:
    """The public addresses of a host. Raises cimd.CIMDError, OSError.

    Replaces the toolkit's function, which has no timeout for DNS.
    """
    seconds = outbound_calls.seconds_left(oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS)
    infos = outbound_calls.resolve(hostname, port, seconds)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    private = [one for one in addresses if not cimd._ip_is_public(one)]
    if private or not addresses:
        detail = "client_id host resolves to no public address"
        raise FetchFailed(DocumentFailure("private", hostname, detail))
    return addresses


def host_and_port(client_id: str) -> str:
    """Canonical host:port of a document's URL. Raises ValueError."""
    return f"{host_of_document(client_id)}:{urlsplit(client_id).port or 443}"


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
    failure = attempt(client_id, host, request)
    if failure is not None:
        failure = after_failure(client_id, client, failure, request)
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

    Raises RateLimited.
    """
    if not cimd._registration_permitted(request, client_id):
        return DocumentFailure("host_blocked", name_only(host))
    if not settings.FETCH_CLIENT_DOCUMENTS:
        return DocumentFailure("off", name_only(host))
    remembered: DocumentFailure | None = cache.get(cimd._backoff_cache_key(client_id))
    if remembered is not None:
        return remembered
    try:
        with SLOTS.slot(host):
            return fetch_and_store(client_id, host)
    except outbound_calls.TooManyOutboundCalls as error:
        raise RateLimited(
            _("Too many client lookups are in progress. Try again."), 5
        ) from (error)


def fetch_and_store(client_id: str, host: str) -> DocumentFailure | None:
    """One fetch. No document may cause a 500, whatever it contains."""
    try:
        document, seconds = oauth2_settings.CIMD_METADATA_FETCHER().fetch(client_id)
        store_client(client_id, document, seconds)
        return None
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


def stand_in(
    client_id: str, client: OAuthClient | None, failure: DocumentFailure
) -> DocumentCopy | None:
    """The copy of a document that its host did not serve; used if it is switched on.

    A client with a document from its host keeps that one.
    """
    fetched = client is not None and client.document_copy_id is None
    if fetched or not failure.unavailable:
        return None
    copy: DocumentCopy | None = DocumentCopy.objects.filter(client_id=client_id).first()
    if copy is not None and copy.enabled:
        store_client(client_id, copy.document, COPY_SECONDS, copy)
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


def install_document_rules() -> None:
    """Replace a function of the toolkit, which has no setting for it.

    A test fails if it is renamed.
    """
    cimd._resolve_and_validate = resolve_public_addresses
