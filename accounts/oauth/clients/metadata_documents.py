"""Client ID Metadata Documents: the toolkit fetches and caches them with our rules.

draft-ietf-oauth-client-id-metadata-document-00 3, 4, 6. Only the authorization endpoint
fetches, for signed-in users and outside any transaction. At the other endpoints a
client without a row has nothing to redeem.
"""

from __future__ import annotations

import logging
import ssl
import time
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.utils import timezone
from django.utils.translation import gettext as _
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.errors import InvalidClientMetadata
from accounts.http import outbound_calls
from accounts.models import DocumentHost, OAuthClient
from accounts.oauth.clients.register import client_columns
from accounts.parsing.host_names import host_of_document
from accounts.parsing.text import one_line
from accounts.rate_limits.errors import RateLimited

logger = logging.getLogger(__name__)

SLOTS = outbound_calls.Slots(together=8, per_host=2)
"""Limits concurrent fetches; slow hosts occupy at most their own slots."""
UNRESPONSIVE_SECONDS = 30.0
"""Seconds without a new fetch after a host did not answer."""
MAX_UNRESPONSIVE = 1_000


def document_columns(metadata: dict[str, Any]) -> dict[str, Any]:
    """Columns of the client that a document describes. Raises cimd.CIMDError.

    Replaces the toolkit's function, which refuses documents with several grant types.
    Claude Code and VS Code publish such documents.
    """
    if {"client_secret", "client_secret_expires_at"} & set(metadata):
        raise cimd.CIMDError("a document must not contain a secret")
    if metadata.get("token_endpoint_auth_method", "none") != "none":
        raise cimd.CIMDError("only token_endpoint_auth_method none is supported")
    if not metadata.get("client_name"):
        raise cimd.CIMDError("client_name is missing")
    try:
        return client_columns({**metadata, "token_endpoint_auth_method": "none"})
    except InvalidClientMetadata as error:
        raise cimd.CIMDError(str(error)) from error


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
            raise cimd.CIMDError(f"{host} did not answer a moment ago")
        try:
            with outbound_calls.call(
                oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS
            ) as call:
                return self.fetch_from_any_address(parts, call)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            UNRESPONSIVE.add(host)
            raise cimd.CIMDError(f"{host} did not answer: {error}") from error

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
            document: tuple[dict[str, Any], int] = self._read_document(response)
            return document
        finally:
            response.release_conn()


def resolve_public_addresses(hostname: str, port: int) -> list[str]:
    """The public addresses of a host. Raises cimd.CIMDError, OSError.

    Replaces the toolkit's function, which has no timeout for DNS.
    """
    seconds = outbound_calls.seconds_left(oauth2_settings.CIMD_FETCH_TIMEOUT_SECONDS)
    infos = outbound_calls.resolve(hostname, port, seconds)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    private = [one for one in addresses if not cimd._ip_is_public(one)]
    if private or not addresses:
        raise cimd.CIMDError("client_id host resolves to no public address")
    return addresses


def host_and_port(client_id: str) -> str:
    """Canonical host:port of a document's URL. Raises ValueError."""
    return f"{host_of_document(client_id)}:{urlsplit(client_id).port or 443}"


def refresh(client_id: str, request: Any) -> None:
    """Fetch the document of a URL client that is unknown or expired.

    If the fetch fails, the stored client stays. Raises RateLimited.
    """
    if not oauth2_settings.CIMD_ENABLED or not cimd.is_cimd_client_id(client_id):
        return
    client = OAuthClient.objects.filter(client_id=client_id).first()
    if client is not None and not is_expired(client):
        return
    try:
        with SLOTS.slot(host_and_port(client_id)):
            cimd.resolve_cimd_application(client_id, request)
    except outbound_calls.TooManyOutboundCalls as error:
        raise RateLimited(
            _("Too many client lookups are in progress. Try again."), 5
        ) from (error)
    except ValueError:
        logger.info("client_id %s is not a valid document URL", one_line(client_id))


def is_expired(client: OAuthClient) -> bool:
    """Whether the cached document of a client has expired."""
    source = client.RegistrationSource.CIMD
    if client.registration_source != source or client.cimd_expires_at is None:
        return False
    return bool(timezone.now() > client.cimd_expires_at)


def install_document_rules() -> None:
    """Replace two functions of the toolkit; a test fails if it renames them.

    The toolkit has no setting for either.
    """
    cimd._build_application_kwargs = document_columns
    cimd._resolve_and_validate = resolve_public_addresses
