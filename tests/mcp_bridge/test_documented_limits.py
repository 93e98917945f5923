"""Limits and intervals that the documentation promises are those of the code."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils.module_loading import import_string

from config.environment import BASE_DIR

pytestmark = pytest.mark.once
MIB = 1024 * 1024
PROMISES: list[tuple[str, str, str, Any]] = [
    # Page, its words, constant in mcp_bridge, value.
    (
        "adding-tools",
        "at most 255 characters",
        "server.portico_server.LONGEST_SCOPE",
        255,
    ),
    ("adding-tools", "so a URI at most 246", "upstreams.definitions.LONGEST_URI", 246),
    ("architecture", "15 seconds becomes a stream", "http.event_stream.PING_EVERY", 15),
    ("architecture", "and every 5 seconds", "cache.decision_cache.VERIFY_EVERY", 5),
    ("architecture", "up to 50 ms of events", "audit.writer.BATCH_EVERY", 0.05),
    ("architecture", "10,000 waiting events", "audit.writer.QUEUE_LIMIT", 10_000),
    ("architecture", "ten times a second", "sessions.registry.POLL_EVERY", 0.1),
    ("architecture", "for five minutes", "sessions.message_log.KEPT_FOR", 300),
    ("architecture", "marks every five seconds", "sessions.streams.ALIVE_EVERY", 5),
    ("architecture", "expires after 15", "sessions.streams.ALIVE_FOR", 15),
    ("architecture", "seen for ten seconds", "sessions.streams.GONE_AFTER", 10),
    (
        "architecture",
        "a stream after one to one and a half seconds",
        "middleware.recorded_response.RESUMABLE_AFTER",
        1,
    ),
    (
        "architecture",
        "a transaction that changes a thousand",
        "cache.triggers.postgresql.MAX_NOTES",
        1000,
    ),
    ("production", "measures itself every 5 seconds", "server.sampling.EVERY", 5),
    ("production", "(at most 10,000)", "server.sampling.MOST_UNSEALED", 10_000),
    ("production", "up to 16 MiB and", "http.unread_body.MOST_BYTES", 16 * MIB),
    ("production", "and 10 seconds", "http.unread_body.MOST_SECONDS", 10),
    ("reliability", "read (5 s)", "cache.readers.postgresql.READ_TIMEOUT", 5),
    ("reliability", "the commit (8 s)", "audit.writer.COMMIT_TIMEOUT", 8),
    ("security", "than 0.4 seconds", "middleware.recorded_response.WATCH_AFTER", 0.4),
    ("security", "half second", "middleware.recorded_response.RECHECK_EVERY", 0.5),
    ("security", "at most 4 KB", "audit.recorded_arguments.MAX_LENGTH", 4096),
    (
        "upstreams",
        "a JWT of two minutes",
        "upstreams.credentials.ASSERTION_SECONDS",
        120,
    ),
    ("upstreams", "five failures in a row", "upstreams.limits.FAILURES", 5),
    ("upstreams", "may have 32 MiB", "upstreams.http_client.MAX_BODY", 32 * MIB),
    ("upstreams", "2,000 entries", "upstreams.discovery.MAX_ITEMS", 2000),
    ("upstreams", "on 100 pages", "upstreams.discovery.MAX_PAGES", 100),
    ("upstreams", "at most 1,000 sessions", "upstreams.exchange.MAX_SESSIONS", 1000),
    ("upstreams", "after ten idle minutes", "upstreams.exchange.IDLE_SECONDS", 600),
    ("upstreams", "within about 6 seconds", "upstreams.listening.COUNT_EVERY", 5),
    ("upstreams", "within about 6 seconds", "upstreams.listening.SETTLE", 1),
]


@pytest.mark.parametrize(("page", "words", "constant", "value"), PROMISES)
def test_a_limit_is_the_documented_one(
    page: str, words: str, constant: str, value: float
) -> None:
    text = (BASE_DIR / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert words in " ".join(text.split())
    assert import_string(f"mcp_bridge.{constant}") == value
