"""Every column that holds values encrypted under KEY_ENCRYPTION_KEY.

`manage.py rotate_secrets` re-encrypts the columns listed here. A test fails if another
purpose is used, or if a column of the models looks encrypted and is not listed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.db import transaction

from accounts.crypto.encryption import KeyUnreadable, reseal

BATCH_ROWS = 200
"""Rows that are locked and re-encrypted in one transaction."""

Reseal = Callable[[bytes], bytes | None]
"""Re-encrypts one value; None if the stored one stays."""


@dataclass
class Progress:
    """How many values of a column were re-encrypted, current or unreadable."""

    renewed: int = 0
    current: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class EncryptedColumn:
    """A column, the purpose of its key, and the column that names the row (`about`).

    `members` are the encrypted members of a JSON object, as base64. Without them, a
    text is base64 and bytes are stored directly.
    """

    label: str
    model: str
    column: str
    purpose: bytes
    about: str = ""
    members: tuple[str, ...] = ()

    def rotate(self, *, check: bool = False) -> Progress:
        """Re-encrypt under the current key; with `check`, only count.

        Commits each batch, so it can be stopped and repeated. Rows that are written
        meanwhile are under the current key already.
        """
        progress, last = Progress(), 0
        manager = apps.get_model(self.model)._base_manager
        rows = manager.exclude(**{f"{self.column}__isnull": True}).order_by("pk")
        rows = rows.only("pk", self.column, *filter(None, [self.about]))
        while True:
            with transaction.atomic():
                page = rows.filter(pk__gt=last).select_for_update(no_key=True)
                batch = list(page[:BATCH_ROWS])
                for row in batch:
                    self._rotate_row(row, progress, check)
            if not batch:
                return progress
            last = batch[-1].pk

    def _rotate_row(self, row: Any, progress: Progress, check: bool) -> None:
        about = str(getattr(row, self.about)).encode() if self.about else b""
        before, stored = progress.renewed, getattr(row, self.column)
        value = self._renewed(stored, partial(self._counted, about, progress))
        if progress.renewed > before and not check:
            rows = type(row)._base_manager.filter(pk=row.pk)
            rows.update(**{self.column: value})

    def _counted(self, about: bytes, progress: Progress, sealed: bytes) -> bytes | None:
        try:
            renewed = reseal(self.purpose, sealed, about)
        except KeyUnreadable:
            progress.unreadable += 1
            return None
        progress.current += renewed is None
        progress.renewed += renewed is not None
        return renewed

    def _renewed(self, stored: Any, work: Reseal) -> Any:
        """The stored value with everything in it re-encrypted that needs it."""
        if self.members:
            own = {name: stored[name] for name in self.members if name in stored}
            return stored | {n: _renewed_member(v, work) for n, v in own.items()}
        if isinstance(stored, str):
            return _renewed_text(stored, work)
        return (work(bytes(stored)) if stored else None) or stored


def _renewed_member(value: Any, work: Reseal) -> Any:
    if isinstance(value, list):
        return [_renewed_text(part, work) for part in value]
    return _renewed_text(value, work)


def _renewed_text(text: str, work: Reseal) -> str:
    """Base64 of the value; text that is not base64 is unreadable."""
    if not text:
        return text
    try:
        sealed = base64.b64decode(text, validate=True)
    except ValueError:
        sealed = b""
    renewed = work(sealed)
    return text if renewed is None else base64.b64encode(renewed).decode()


SIGNING_KEYS = EncryptedColumn(
    label="signing keys",
    model="accounts.SigningKey",
    column="private_encrypted",
    purpose=b"portico signing keys v1",
    about="kid",
)
SIGN_IN_PROVIDERS = EncryptedColumn(
    label="secrets of sign-in providers",
    model="accounts.SignInProvider",
    column="secret_encrypted",
    purpose=b"portico sign-in providers v1",
)
SECOND_FACTORS = EncryptedColumn(
    label="second factors",
    model="mfa.Authenticator",
    column="data",
    purpose=b"portico second factors v1",
    members=("secret", "seed", "migrated_codes"),
)
REFRESH_SUCCESSORS = EncryptedColumn(
    label="successors of refresh tokens",
    model="accounts.IssuedToken",
    column="successor_sealed",
    purpose=b"portico refresh successors v1",
    about="jti",
)
UPSTREAM_CREDENTIALS = EncryptedColumn(
    label="credentials of upstream servers",
    model="mcp_bridge.UpstreamCredential",
    column="secret_encrypted",
    purpose=b"portico upstream credentials v1",
    about="upstream_id",
)
NOTIFICATION_CHANNELS = EncryptedColumn(
    label="secrets of notification channels",
    model="accounts.NotificationChannel",
    column="secrets_encrypted",
    purpose=b"portico notification channels v1",
    about="row_key",
)
SESSION_MESSAGES = EncryptedColumn(
    label="messages of sessions",
    model="mcp_bridge.SessionMessage",
    column="content_encrypted",
    purpose=b"portico session messages v1",
    about="channel",
)
ENCRYPTED = (
    SIGNING_KEYS,
    SIGN_IN_PROVIDERS,
    SECOND_FACTORS,
    REFRESH_SUCCESSORS,
    UPSTREAM_CREDENTIALS,
    NOTIFICATION_CHANNELS,
    SESSION_MESSAGES,
)
