"""Which rows a decision depends on, and whom a change to them concerns.

A table a decision begins to read is added to `watched()`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from django.db import models

from accounts.models import (
    IssuedToken,
    OAuthClient,
    RevokedToken,
    Role,
    RoleAssignment,
    Scope,
    SigningKey,
    User,
)
from mcp_bridge.models import Primitive

KEPT = 10_000
"""Length of the change log; who has seen less forgets everything."""


class ChangeScope(StrEnum):
    """What a change makes untrue. The first three name one by a key."""

    USER = "user"
    TOKEN = "token"  # noqa: S105
    CLIENT = "client"
    ALL_USERS = "people"
    CATALOGUE = "catalogue"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table: whom its rows concern, and which of its changes matter.

    Columns count unless they are `ignored`, so that a new one counts by itself.
    """

    model: type[models.Model]
    kind: ChangeScope
    key: str = ""
    ignored: tuple[str, ...] = ()
    insert: bool = True
    delete: bool = True
    while_live: bool = False
    """Deletions count only before `expires_at`: what is over is not remembered."""

    @property
    def table(self) -> str:
        """Its name in the database."""
        return self.model._meta.db_table

    @property
    def columns(self) -> list[str]:
        """The columns that count."""
        fields = self.model._meta.local_concrete_fields
        return [str(f.column) for f in fields if f.name not in self.ignored]

    @property
    def unique(self) -> list[str]:
        """Columns by which SQLite's REPLACE removes a row without a word."""
        fields = self.model._meta.local_concrete_fields
        return [str(field.column) for field in fields if field.unique]


class Outside(NamedTuple):
    """A table that changes without a trigger, and why."""

    table: str
    why: str
    """`subscription` or `inheritance`."""

    def __str__(self) -> str:
        """For the log."""
        return f"{self.table} by {self.why}"


def watched_tables() -> Iterator[WatchedTable]:
    """Every table behind authenticate() and the catalogue."""
    personal = ("first_name", "last_name", "date_joined")
    address = ("email", "email_set_by_admin")
    signing_in = ("password", "session_epoch", "last_login")
    ignored = (*personal, *address, *signing_in)
    yield WatchedTable(User, ChangeScope.USER, "id", ignored=ignored, insert=False)
    yield WatchedTable(RoleAssignment, ChangeScope.USER, "user_id", ignored=("reason",))
    refreshed = ("redeemed_at", "successor", "successor_sealed")
    used = ("last_used_at", "last_used_from", "name", *refreshed)
    yield WatchedTable(
        IssuedToken,
        ChangeScope.TOKEN,
        "jti",
        ignored=used,
        insert=False,
        while_live=True,
    )
    # That a revocation goes concerns nobody: refusals are not remembered.
    yield WatchedTable(RevokedToken, ChangeScope.TOKEN, "jti", delete=False)
    yield WatchedTable(
        OAuthClient,
        ChangeScope.CLIENT,
        "client_id",
        ignored=("last_used_at", "updated"),
    )
    yield WatchedTable(SigningKey, ChangeScope.ALL, insert=False)
    yield WatchedTable(
        Role, ChangeScope.ALL_USERS, ignored=("description",), insert=False
    )
    yield WatchedTable(Role.scopes.through, ChangeScope.ALL_USERS)
    yield WatchedTable(Scope, ChangeScope.ALL, ignored=("description",), insert=False)
    texts = ("title", "description", "definition")
    times = ("first_seen_at", "last_seen_at", "changed_at", "vanished_at")
    yield WatchedTable(
        Primitive, ChangeScope.CATALOGUE, ignored=(*texts, *times, "enabled_before")
    )
    yield WatchedTable(Primitive.required_scopes.through, ChangeScope.CATALOGUE)
