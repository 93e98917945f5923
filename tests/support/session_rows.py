"""The rows of sessions in memory, for tests without a database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import pytest

from mcp_bridge.cache.decision_cache import session_notices
from mcp_bridge.sessions import registry, rows


class SessionRows:
    """Takes the place of `mcp_bridge.sessions.rows`; changes are seen at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.expiring: dict[str, float] = {}
        """Key of a live session -> when it expires."""
        self.surplus: list[str] = []
        """Sessions that the next new one ends."""
        self.reads = 0
        monkeypatch.setattr(rows, "add_session", self.add)
        monkeypatch.setattr(rows, "expiry", self.expiry)
        monkeypatch.setattr(rows, "extend_sessions", self.extend)
        monkeypatch.setattr(rows, "end_row", self.end)
        monkeypatch.setattr(rows, "delete_expired", lambda: None)
        monkeypatch.setattr(registry, "tracks_changes", lambda: True)

    def add(self, key: str, user_id: int, used: Mapping[str, float]) -> list[str]:
        """Add a session; return those that it ended."""
        ended, self.surplus = self.surplus, []
        for each in ended:
            del self.expiring[each]
        self.expiring[key] = time.time() + rows.lifetime().total_seconds()
        return ended

    def expiry(self, key: str) -> float:
        self.reads += 1
        return self.expiring.get(key, 0.0)

    def extend(self, keys: Iterable[str], used_at: float) -> None:
        for key in keys:
            if key in self.expiring:
                self.expiring[key] = used_at + rows.lifetime().total_seconds()

    def end(self, key: str) -> None:
        self.expiring.pop(key, None)

    def ended_elsewhere(self, key: str) -> None:
        """Another worker ended it, and this one has read the change."""
        self.end(key)
        for notice in session_notices:
            notice(key)
