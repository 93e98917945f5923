"""The toolkit's fetcher with our rules: for client documents and their key sets.

draft-ietf-oauth-client-id-metadata-document-00 6.5, 6.6.
"""

from __future__ import annotations

import ssl
import time
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import urllib3
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.http import outbound_calls
from accounts.models import DocumentHost
from accounts.oauth.clients.document_failures import (
    DocumentFailure,
    FetchFailed,
    name_only,
    network_failure,
)
from accounts.parsing.host_names import host_of_document

SLOTS = outbound_calls.Slots(together=8, per_host=2)
"""Limits concurrent fetches; slow hosts occupy at most their own slots."""
UNRESPONSIVE_SECONDS = 30.0
"""Seconds without a new fetch after a host did not answer."""
MAX_UNRESPONSIVE = 1_000


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
                return self.fetch_until_deadline(parts, call)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            UNRESPONSIVE.add(host)
            raise network_failure(host, error) from error

    def fetch_until_deadline(
        self, parts: Any, call: outbound_calls.OutboundCall
    ) -> tuple[dict[str, Any], int]:
        """Raise TimeoutError for a body that the deadline cut: it is no valid JSON."""
        try:
            return self.fetch_from_any_address(parts, call)
        except cimd.CIMDError as error:
            if call.expired:
                raise TimeoutError("the deadline has passed") from error
            raise

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
        except RecursionError as error:
            raise cimd.CIMDError("document is nested too deeply") from error
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


def install_document_rules() -> None:
    """Replace a function of the toolkit, which has no setting for it.

    A test fails if it is renamed.
    """
    cimd._resolve_and_validate = resolve_public_addresses
