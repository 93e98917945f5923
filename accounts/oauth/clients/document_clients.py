"""The client row of a metadata document, fetched or copied (CIMD 4.1, 6.2)."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from oauth2_provider import cimd

from accounts.errors import InvalidClientMetadata
from accounts.models import DocumentCopy, OAuthClient
from accounts.models.oauth import PRIVATE_KEY_JWT
from accounts.oauth.clients.key_sets import KeySet, key_set_uri
from accounts.oauth.clients.register import client_columns
from accounts.parsing.text import one_line
from accounts.tokens.assertions import published_keys

logger = logging.getLogger(__name__)

COLUMNS = (
    "name",
    "redirect_uris",
    "token_endpoint_auth_method",
    "client_type",
    "authorization_grant_type",
    "grant_types",
    "client_jwks",
)
"""Columns that a document sets."""
DOCUMENT_AUTH_METHODS = ("none", PRIVATE_KEY_JWT)
"""Methods without a shared secret (CIMD 6.2)."""
CIMD_COLUMNS = ("cimd_expires_at", "document_copy", "registered")


def document_columns(metadata: dict[str, Any]) -> dict[str, Any]:
    """Columns of the client that a document describes. Raises cimd.CIMDError.

    Unlike the toolkit's function, it accepts documents with several grant types.
    Claude and VS Code publish such documents.
    """
    if {"client_secret", "client_secret_expires_at"} & set(metadata):
        raise cimd.CIMDError("a document must not contain a secret")
    if not metadata.get("client_name"):
        raise cimd.CIMDError("client_name is missing")
    method = metadata.get("token_endpoint_auth_method") or DOCUMENT_AUTH_METHODS[0]
    keys = document_keys(metadata) if method == PRIVATE_KEY_JWT else {}
    named = {**metadata, "token_endpoint_auth_method": method}
    uri = key_set_uri(metadata)
    try:
        return client_columns(named, DOCUMENT_AUTH_METHODS, keys, uri)
    except InvalidClientMetadata as error:
        raise cimd.CIMDError(str(error)) from error


def document_keys(metadata: dict[str, Any]) -> dict[str, Any]:
    """The JWK Set in a document, empty if it names a `jwks_uri`. Raises CIMDError."""
    if key_set_uri(metadata):
        return {}
    if "jwks" not in metadata:
        raise cimd.CIMDError("private_key_jwt needs jwks or jwks_uri")
    try:
        return published_keys(metadata["jwks"])
    except ValueError as error:
        raise cimd.CIMDError(f"jwks is not valid: {error}") from error


def described_client(
    client_id: str, document: dict[str, Any], keys: KeySet | None = None
) -> OAuthClient:
    """The unsaved client of the document at this URL. Raises cimd.CIMDError.

    `keys` are those at its `jwks_uri`; without, it keeps those of the same URI.
    """
    if document.get("client_id") != client_id:
        raise cimd.CIMDError("document client_id does not match the client_id URL")
    source = OAuthClient.RegistrationSource.CIMD
    client = OAuthClient.objects.filter(client_id=client_id).first()
    client = client or OAuthClient(client_id=client_id, registration_source=source)
    if client.registration_source != source:
        raise cimd.CIMDError("client_id URL belongs to a client of an administrator")
    columns = document_columns(document)
    if keys is None and columns["registered"]:
        keys = stored_keys(client, columns["registered"]["jwks_uri"])
    for name, value in {**columns, **(keys.columns if keys else {})}.items():
        setattr(client, name, value)
    try:
        client.full_clean(exclude=["client_secret"], validate_unique=False)
    except ValidationError as error:
        raise cimd.CIMDError("; ".join(error.messages)) from error
    return client


def stored_keys(client: OAuthClient, uri: str) -> KeySet | None:
    """The keys that were fetched from this `jwks_uri`."""
    if client.registered.get("jwks_uri") != uri:
        return None
    return KeySet(uri, client.client_jwks, client.registered.get("jwks_until", 0.0))


def store_client(
    client_id: str,
    document: dict[str, Any],
    seconds: float,
    copy: DocumentCopy | None = None,
    keys: KeySet | None = None,
) -> None:
    """Create or update the client. Raises cimd.CIMDError.

    `seconds` is the time until the document is fetched again.
    """
    client = described_client(client_id, document, keys)
    client.cimd_expires_at = timezone.now() + timedelta(seconds=seconds)
    client.document_copy = copy
    if client.pk:
        # Only these columns: an administrator may block the client meanwhile.
        values = {name: getattr(client, name) for name in (*COLUMNS, *CIMD_COLUMNS)}
        OAuthClient.objects.filter(pk=client.pk).update(**values)
        return
    try:
        with transaction.atomic():
            client.save()
    except IntegrityError:
        # Another request created the client meanwhile, from the same document.
        logger.info("client_id %s was stored at the same time", one_line(client_id))
