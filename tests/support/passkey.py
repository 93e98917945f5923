"""An authenticator in software: ES256, no attestation, one credential (WebAuthn 2)."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from allauth.account.utils import user_pk_to_url_str
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40
"""Flags of authenticator data: a touch, the person (PIN, finger), a new credential."""


def encoded(raw: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def user_handle(user: Any) -> str:
    return encoded(user_pk_to_url_str(user).encode())


@dataclass
class Passkey:
    """One credential for one relying party; `origin` is the page that asks."""

    rp_id: str
    origin: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))

    def register(
        self, challenge: str, origin: str = "", verified: bool = False
    ) -> dict[str, Any]:
        """The response to `navigator.credentials.create()`."""
        algorithm: Any = ES256
        public = algorithm.from_cryptography_key(self.key.public_key())
        cose = cbor.encode(dict(public))
        length = struct.pack(">H", len(self.credential_id))
        flags = PRESENT | ATTESTED | (VERIFIED if verified else 0)
        data = self._authenticator_data(flags)
        data += bytes(16) + length + self.credential_id + cose
        attestation = {"fmt": "none", "attStmt": {}, "authData": data}
        client = self._client_data("webauthn.create", challenge, origin)
        return self._response(client, attestationObject=cbor.encode(attestation))

    def sign(
        self, challenge: str, user: Any, verified: bool = False, origin: str = ""
    ) -> dict[str, Any]:
        """The response to `navigator.credentials.get()`, after a touch at least."""
        data = self._authenticator_data(PRESENT | (VERIFIED if verified else 0))
        client = self._client_data("webauthn.get", challenge, origin)
        signed = data + hashlib.sha256(client).digest()
        signature = self.key.sign(signed, ec.ECDSA(hashes.SHA256()))
        response = self._response(client, authenticatorData=data, signature=signature)
        response["response"]["userHandle"] = user_handle(user)
        return response

    def _client_data(self, kind: str, challenge: str, origin: str) -> bytes:
        data = {"type": kind, "challenge": challenge, "crossOrigin": False}
        return json.dumps({**data, "origin": origin or self.origin}).encode()

    def _authenticator_data(self, flags: int) -> bytes:
        hashed = hashlib.sha256(self.rp_id.encode()).digest()
        return hashed + bytes([flags]) + struct.pack(">I", 0)

    def _response(self, client_data: bytes, **parts: bytes) -> dict[str, Any]:
        raw = {"clientDataJSON": client_data, **parts}
        return {
            "type": "public-key",
            "id": encoded(self.credential_id),
            "rawId": encoded(self.credential_id),
            "response": {name: encoded(value) for name, value in raw.items()},
            "clientExtensionResults": {},
        }
