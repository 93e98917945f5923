"""Client ID Metadata Documents: the toolkit fetches safely, our rules judge.

draft-ietf-oauth-client-id-metadata-document-00 3, 4, 6. The toolkit's fetcher resolves
once, refuses private addresses and redirects, and caps size and time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from oauth2_provider import cimd

from accounts.models import DocumentHost
from accounts.oauth.registration import BadMetadata, fields


def columns(metadata: dict[str, Any]) -> dict[str, Any]:
    """Columns of the client a document describes. Raises cimd.CIMDError.

    Stands in for the toolkit's own, which refuses documents with several grant types,
    as Claude Code and VS Code publish them (W3).
    """
    if {"client_secret", "client_secret_expires_at"} & set(metadata):
        raise cimd.CIMDError("a document cannot hold a secret")
    if metadata.get("token_endpoint_auth_method", "none") != "none":
        raise cimd.CIMDError("only token_endpoint_auth_method none is served")
    if not metadata.get("client_name"):
        raise cimd.CIMDError("client_name is missing")
    try:
        return fields({**metadata, "token_endpoint_auth_method": "none"})
    except BadMetadata as error:
        raise cimd.CIMDError(str(error)) from error


class HostPolicy:
    """The toolkit asks before it fetches: the admin's list of hosts answers."""

    def has_permission(self, request: Any, client_id: str) -> bool:
        """Whether the document of this URL may be fetched."""
        host = urlsplit(client_id).hostname
        return not DocumentHost.objects.filter(host=host, trusted=False).exists()


def install() -> None:
    """Put it in the toolkit's place; a test fails if that place moves."""
    cimd._build_application_kwargs = columns
