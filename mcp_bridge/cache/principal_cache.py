"""PrincipalCache: a bounded cache of principals, and what a change evicts from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from accounts.tokens.principal import Principal
from mcp_bridge.cache.readers.base import ChangeRow
from mcp_bridge.cache.watched_tables import ChangeScope

Key = bytes
"""SHA-256 of a raw token; the cache never stores the token itself."""


class PrincipalCache:
    """Key -> Principal, least recently used evicted first."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.known: OrderedDict[Key, Principal] = OrderedDict()
        self.tokens: dict[str, Key] = {}
        self.users: dict[int, Key | set[Key]] = {}
        """User id -> keys. A single key stands without a set: a quarter of the memory.
        """
        self.idle: set[Key] = set()
        """Keys cached at the last `evict_idle()` and unused since."""

    def __len__(self) -> int:
        return len(self.known)

    def get(self, key: Key) -> Principal | None:
        """The principal of `key`, marked as used; None if it is not cached."""
        principal = self.known.get(key)
        if principal is not None:
            self.known.move_to_end(key)
            self.idle.discard(key)
        return principal

    def evict_idle(self) -> None:
        """Evict every principal that was not used since the last call."""
        for key in list(self.idle):
            self.drop(key)
        self.idle = set(self.known)

    def put(self, key: Key, principal: Principal) -> None:
        """Cache the principal; evict the least recently used over the limit."""
        self.drop(key)
        self.known[key] = principal
        self.tokens[principal.jti] = key
        self._note_user(principal.user_id, key)
        if len(self.known) > self.max_size:
            self.drop(next(iter(self.known)))

    def _note_user(self, user_id: int, key: Key) -> None:
        keys = self.users.setdefault(user_id, key)
        if isinstance(keys, set):
            keys.add(key)
        elif keys != key:
            self.users[user_id] = {keys, key}

    def drop(self, key: Key) -> None:
        principal = self.known.pop(key, None)
        if principal is None:
            return
        self.idle.discard(key)
        self.tokens.pop(principal.jti, None)
        keys = self.users[principal.user_id]
        if isinstance(keys, set):
            keys.discard(key)
        if keys in (key, set()):
            del self.users[principal.user_id]

    def clear(self) -> None:
        self.known.clear()
        self.tokens.clear()
        self.users.clear()
        self.idle.clear()

    def evict(self, change: ChangeRow) -> None:
        """Evict exactly the principals that `change` concerns."""
        if change.kind in (ChangeScope.ALL, ChangeScope.ALL_USERS):
            self.clear()
        for key in list(self._concerned(change)):
            self.drop(key)

    def _concerned(self, change: ChangeRow) -> Iterable[Key]:
        if change.kind == ChangeScope.TOKEN:
            key = self.tokens.get(change.key)
            return () if key is None else (key,)
        if change.kind == ChangeScope.USER:
            keys = self.users.get(int(change.key), ())
            return (keys,) if isinstance(keys, bytes) else keys
        if change.kind == ChangeScope.CLIENT:
            items = self.known.items()
            return [k for k, principal in items if principal.client_id == change.key]
        return ()


def concerns(change: ChangeRow, principal: Principal) -> bool:
    """Whether `change` may invalidate `principal`."""
    own = {
        ChangeScope.USER: str(principal.user_id),
        ChangeScope.TOKEN: principal.jti,
        ChangeScope.CLIENT: principal.client_id,
    }
    if change.kind in own:
        return own[ChangeScope(change.kind)] == change.key
    return change.kind not in (ChangeScope.CATALOGUE, ChangeScope.SESSION)


def concerns_catalogue(change: ChangeRow) -> bool:
    """Whether `change` may invalidate the rules."""
    return change.kind in (ChangeScope.CATALOGUE, ChangeScope.ALL)
