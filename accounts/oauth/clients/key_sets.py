"""Keys of a document's client at its `jwks_uri` (RFC 7591 2, RFC 7517 5).

They are fetched with the document's rules: https, public addresses only, no redirects,
one deadline, 16 KB, allowed hosts.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.core.cache import cache
from oauth2_provider import cimd
from oauth2_provider.settings import oauth2_settings

from accounts.http import outbound_calls
from accounts.models import OAuthClient
from accounts.models.oauth import PRIVATE_KEY_JWT
from accounts.oauth.clients.document_failures import (
    DocumentFailure,
    FetchFailed,
    failure_of,
    name_only,
)
from accounts.oauth.clients.document_fetcher import SLOTS, HostPolicy, host_and_port
from accounts.parsing.text import one_line
from accounts.tokens.assertions import published_keys

logger = logging.getLogger(__name__)

FETCH_SECONDS = 60
"""At most one fetch per client and this time, whatever assertions arrive."""


@dataclass(frozen=True)
class KeySet:
    """Public keys and the time (seconds since the epoch) until they count as fresh."""

    uri: str
    keys: dict[str, Any]
    until: float

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the client that hold it."""
        registered = {"jwks_uri": self.uri, "jwks_until": self.until}
        return {"client_jwks": self.keys, "registered": registered}


def key_set_uri(document: dict[str, Any]) -> str:
    """The `jwks_uri` of a client that signs; empty without. Raises cimd.CIMDError."""
    if document.get("token_endpoint_auth_method") != PRIVATE_KEY_JWT:
        return ""
    if "jwks_uri" not in document:
        return ""
    if "jwks" in document:
        raise cimd.CIMDError("jwks and jwks_uri exclude each other")
    uri = document["jwks_uri"]
    if not isinstance(uri, str) or not uri.isprintable():
        raise cimd.CIMDError("jwks_uri is no URL")
    try:
        cimd._validate_client_id_url(uri)
        host_and_port(uri)
    except (cimd.CIMDError, ValueError) as error:
        raise cimd.CIMDError(problem_text(error)) from error
    return uri


def keys_of(document: dict[str, Any]) -> KeySet | None:
    """Fetch the keys of a valid document; None if it names no `jwks_uri`.

    Raises cimd.CIMDError, TooManyOutboundCalls.
    """
    uri = key_set_uri(document)
    return fetch_keys(uri) if uri else None


def fetch_keys(uri: str) -> KeySet:
    """Fetch a key set. Raises cimd.CIMDError, TooManyOutboundCalls."""
    host = host_and_port(uri)
    if not HostPolicy().has_permission(None, uri):
        raise FetchFailed(DocumentFailure("host_blocked", name_only(host)))
    if not settings.FETCH_CLIENT_DOCUMENTS:
        raise FetchFailed(DocumentFailure("off", name_only(host)))
    try:
        with SLOTS.slot(host):
            document, seconds = oauth2_settings.CIMD_METADATA_FETCHER().fetch(uri)
        return KeySet(uri, published_keys(document), time.time() + seconds)
    except FetchFailed as error:
        detail = f"jwks_uri: {error.failure.detail}"
        raise FetchFailed(replace(error.failure, detail=detail)) from error
    except (cimd.CIMDError, ValueError) as error:
        raise cimd.CIMDError(problem_text(error)) from error


def problem_text(error: Exception) -> str:
    """The error, about the key set instead of the toolkit's "client_id document"."""
    return f"jwks_uri: {str(error).removeprefix('client_id ')}"


def are_outdated(client: OAuthClient) -> bool:
    """Whether the client's keys came from a `jwks_uri` and are no longer fresh."""
    until = client.registered.get("jwks_until", 0.0)
    return "jwks_uri" in client.registered and time.time() > until


def renew_keys(client: OAuthClient) -> bool:
    """Fetch the keys of a client again, at most once in FETCH_SECONDS.

    Returns whether it has other keys now. The stored keys stay while the host serves
    nothing; without a valid set at the host, no key is left.
    """
    uri = client.registered.get("jwks_uri", "")
    if not uri or not oauth2_settings.CIMD_ENABLED:
        return False
    if not cache.add(f"client-keys:{client.pk}", 1, FETCH_SECONDS):
        return False
    try:
        found = fetch_keys(uri)
    except outbound_calls.TooManyOutboundCalls:
        return False
    except cimd.CIMDError as error:
        failure = failure_of(error, host_and_port(uri))
        text = "The keys of %s cannot be fetched: %s"
        logger.warning(text, one_line(client.client_id), one_line(failure.reason))
        if failure.unavailable:
            return False
        found = KeySet(uri, {}, 0.0)
    changed = bool(found.keys != client.client_jwks)
    # The document may have named another set meanwhile.
    rows = OAuthClient.objects.filter(pk=client.pk, registered__jwks_uri=uri)
    rows.update(**found.columns)
    for name, value in found.columns.items():
        setattr(client, name, value)
    return changed
