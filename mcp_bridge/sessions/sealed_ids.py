"""Session ids that carry, sealed, what any worker needs to serve a message.

AES-256-GCM under KEY_ENCRYPTION_KEY: nobody else can make, change or read one. An id is
visible ASCII (MCP 2025-11-25 basic/transports), and shorter than MAX_LENGTH.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mcp_types import ClientCapabilities, Implementation, InitializeRequestParams
from pydantic import ValidationError

from accounts.crypto.encryption import KeyUnreadable, seal, unseal
from accounts.tokens.principal import Principal

PURPOSE = b"portico session ids"
MAX_LENGTH = 1024
"""Characters of an id; longer ones are unknown."""
MAX_CONTENT = 700
"""Compressed bytes that an id can carry."""
MAX_INFLATED = 64 * 1024
MAX_NAME = 64
"""Characters of the client's name and version that are kept."""
SERVED = ("elicitation", "sampling", "roots")
"""Capabilities by which a client answers requests; others may be too long."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What `initialize` agreed, and the owner."""

    key: str
    """32 random hexadecimal digits; the row has it."""
    user_id: int
    client_id: str
    version: str
    """The protocol version."""
    capabilities: Mapping[str, Any]
    client: tuple[str, str]
    """Name and version of the program."""

    def belongs_to(self, principal: Principal) -> bool:
        """Whether this person opened it, with this client."""
        owner = self.user_id, self.client_id
        return owner == (principal.user_id, principal.client_id)

    def initialized(self) -> InitializeRequestParams:
        """The parameters as the SDK keeps them. Raises ValidationError."""
        told = json.dumps(self.capabilities, sort_keys=True)
        return agreed_params(self.version, told, *self.client)


@lru_cache(maxsize=64)
def agreed_params(
    protocol: str, capabilities: str, name: str, version: str
) -> InitializeRequestParams:
    """Sessions of the same program share them. Raises ValidationError."""
    return InitializeRequestParams(
        protocol_version=protocol,
        capabilities=ClientCapabilities.model_validate(json.loads(capabilities)),
        client_info=Implementation(name=name, version=version),
    )


def new_facts(
    principal: Principal, version: str, params: InitializeRequestParams
) -> SessionFacts:
    """The facts of a session that this principal opens."""
    told = params.capabilities.model_dump(by_alias=True, exclude_none=True)
    info = params.client_info
    return SessionFacts(
        secrets.token_hex(16),
        principal.user_id,
        principal.client_id,
        version,
        told,
        (info.name[:MAX_NAME], info.version[:MAX_NAME]),
    )


def seal_facts(facts: SessionFacts) -> str:
    """The id that the client gets; capabilities that do not fit are left out."""
    content = packed(facts, facts.capabilities)
    if len(content) > MAX_CONTENT:
        told = {k: v for k, v in facts.capabilities.items() if k in SERVED}
        content = packed(facts, told)
    if len(content) > MAX_CONTENT:
        content = packed(facts, {k: {} for k in SERVED if k in facts.capabilities})
    return visible_ascii(seal(PURPOSE, content))


def packed(facts: SessionFacts, capabilities: Mapping[str, Any]) -> bytes:
    """The facts as compressed JSON, with these capabilities."""
    owner = facts.key, facts.user_id, facts.client_id
    fields = [*owner, facts.version, capabilities, facts.client]
    return zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)


def open_facts(session_id: str) -> SessionFacts | None:
    """The facts that an id carries; None if this project did not make it."""
    if not session_id or len(session_id) > MAX_LENGTH or not session_id.isascii():
        return None
    try:
        padded = session_id + "=" * (-len(session_id) % 4)
        sealed = base64.b64decode(padded, altchars=b"-_", validate=True)
        if visible_ascii(sealed) != session_id:
            return None  # base64 has spare bits: one id has one spelling
        content = unseal(PURPOSE, sealed)
        fields = json.loads(zlib.decompressobj().decompress(content, MAX_INFLATED))
        key, user_id, client_id, version, capabilities, client = fields
        told = SessionFacts(
            key, user_id, client_id, version, capabilities, tuple(client)
        )
        told.initialized()
    except (KeyUnreadable, ValueError, TypeError, ValidationError, zlib.error):
        return None
    return told


def visible_ascii(sealed: bytes) -> str:
    """Bytes as visible ASCII."""
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")
