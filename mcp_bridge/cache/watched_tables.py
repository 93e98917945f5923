"""The tables that decisions read, and the cache entries that a change in them affects.

Add a table that decisions read to `watched_tables()`; a test compares the two.
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
from mcp_bridge.models import (
    ArgumentRule,
    ClientSession,
    Primitive,
    UpstreamCredential,
    UpstreamServer,
)

LOG_LENGTH = 10_000
"""Rows in the change log; a worker that is further behind clears its cache."""


class ChangeScope(StrEnum):
    """What a change invalidates. The first four name one entry by a key."""

    USER = "user"
    TOKEN = "token"  # noqa: S105
    CLIENT = "client"
    SESSION = "session"
    ALL_USERS = "people"
    CATALOGUE = "catalogue"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table, the cache entries its rows affect, and the changes that matter.

    Every column matters unless it is `ignored`, so a new column is safe by default.
    """

    model: type[models.Model]
    kind: ChangeScope
    key: str = ""
    ignored: tuple[str, ...] = ()
    insert: bool = True
    delete: bool = True
    while_live: bool = False
    """Deletions matter only before `expires_at`: expired tokens are not cached."""

    @property
    def table(self) -> str:
        return self.model._meta.db_table

    @property
    def columns(self) -> list[str]:
        """Names of the columns that matter."""
        fields = self.model._meta.local_concrete_fields
        return [str(f.column) for f in fields if f.name not in self.ignored]

    @property
    def unique(self) -> list[str]:
        """Columns by which SQLite's REPLACE deletes a row without a DELETE trigger."""
        fields = self.model._meta.local_concrete_fields
        return [str(field.column) for field in fields if field.unique]


class UntrackedTable(NamedTuple):
    """A table that changes without firing its triggers, and why."""

    table: str
    why: str
    """`subscription` or `inheritance`."""

    def __str__(self) -> str:
        """As the log and the checks show it."""
        return f"{self.table} by {self.why}"


def watched_tables() -> Iterator[WatchedTable]:
    """Every table that authenticate() and the catalogue read."""
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
    # A deleted revocation invalidates nothing: refusals are not cached.
    yield WatchedTable(RevokedToken, ChangeScope.TOKEN, "jti", delete=False)
    yield WatchedTable(
        OAuthClient,
        ChangeScope.CLIENT,
        "client_id",
        ignored=("last_used_at", "updated"),
    )
    yield WatchedTable(SigningKey, ChangeScope.ALL, insert=False)
    # Argument rules name roles, so a new name concerns the catalogue too.
    yield WatchedTable(Role, ChangeScope.ALL, ignored=("description",), insert=False)
    yield WatchedTable(Role.scopes.through, ChangeScope.ALL_USERS)
    yield WatchedTable(Scope, ChangeScope.ALL, ignored=("description",), insert=False)
    texts = ("title", "description", "definition", "offered", "problem")
    times = ("first_seen_at", "last_seen_at", "changed_at", "vanished_at")
    # `accepted_hash` changes with `accepted`. `updates` decides nothing: open streams
    # of every worker learn by it that a resource was updated.
    yield WatchedTable(
        Primitive, ChangeScope.CATALOGUE, ignored=(*texts, *times, "accepted")
    )
    yield WatchedTable(Primitive.required_scopes.through, ChangeScope.CATALOGUE)
    yield WatchedTable(UpstreamServer, ChangeScope.CATALOGUE)
    yield WatchedTable(UpstreamCredential, ChangeScope.CATALOGUE, ignored=("state",))
    yield WatchedTable(ArgumentRule, ChangeScope.CATALOGUE)
    # Its client ended it, or a limit did. A new one and its use concern nobody else.
    yield WatchedTable(
        ClientSession,
        ChangeScope.SESSION,
        "key",
        ignored=("expires_at",),
        insert=False,
        while_live=True,
    )
