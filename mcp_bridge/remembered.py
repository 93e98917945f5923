"""People: the principals a worker remembers, bounded; changes say whom to forget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from accounts.principal import Principal
from mcp_bridge.changes import Kind
from mcp_bridge.readers import Change

Key = bytes
"""SHA-256 of a raw token: the token itself is remembered nowhere."""


class People:
    """Key -> Principal; the one not used for longest goes first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: OrderedDict[Key, Principal] = OrderedDict()
        self.tokens: dict[str, Key] = {}
        self.users: dict[str, set[Key]] = {}

    def __len__(self) -> int:
        return len(self.known)

    def get(self, key: Key) -> Principal | None:
        """Who is behind `key`, noted as used now."""
        principal = self.known.get(key)
        if principal is not None:
            self.known.move_to_end(key)
        return principal

    def put(self, key: Key, principal: Principal) -> None:
        """Remember; forget the longest unused where there are too many."""
        self.drop(key)
        self.known[key] = principal
        self.tokens[principal.jti] = key
        self.users.setdefault(str(principal.user_id), set()).add(key)
        if len(self.known) > self.most:
            self.drop(next(iter(self.known)))

    def drop(self, key: Key) -> None:
        """Forget one."""
        principal = self.known.pop(key, None)
        if principal is None:
            return
        self.tokens.pop(principal.jti, None)
        user = str(principal.user_id)
        keys = self.users[user]
        keys.discard(key)
        if not keys:
            del self.users[user]

    def clear(self) -> None:
        """Forget all."""
        self.known.clear()
        self.tokens.clear()
        self.users.clear()

    def forget(self, change: Change) -> None:
        """Forget whom `change` concerns, and nobody else."""
        if change.kind in (Kind.ALL, Kind.PEOPLE):
            self.clear()
        for key in list(self._concerned(change)):
            self.drop(key)

    def _concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == Kind.TOKEN:
            key = self.tokens.get(change.key)
            return () if key is None else (key,)
        if change.kind == Kind.USER:
            return self.users.get(change.key, ())
        if change.kind == Kind.CLIENT:
            items = self.known.items()
            return [k for k, person in items if person.client_id == change.key]
        return ()


def concerns(change: Change, principal: Principal) -> bool:
    """Whether `change` may make `principal` untrue."""
    own = {
        Kind.USER: str(principal.user_id),
        Kind.TOKEN: principal.jti,
        Kind.CLIENT: principal.client_id,
    }
    if change.kind in own:
        return own[Kind(change.kind)] == change.key
    return change.kind != Kind.CATALOGUE


def concerns_catalogue(change: Change) -> bool:
    """Whether `change` may make the rules untrue."""
    return change.kind in (Kind.CATALOGUE, Kind.ALL)
