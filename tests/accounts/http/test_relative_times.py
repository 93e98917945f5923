"""Relative times in words of both languages, with the exact time beside them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from django.utils.translation import override

from accounts.http.relative_times import exact, relative, time_element

pytestmark = pytest.mark.once
NOW = datetime(2026, 5, 10, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def noon(monkeypatch: Any) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


@pytest.mark.parametrize(
    ("seconds", "english", "korean"),
    [
        (0, "just now", "방금"),
        (-59, "just now", "방금"),
        (59, "in less than a minute", "1분 이내"),
        (-60, "1 minute ago", "1분 전"),
        (60, "in 1 minute", "1분 후"),
        (-7200 - 1800, "2 hours ago", "2시간 전"),
        (2 * 86400, "in 2 days", "2일 후"),
        (2 * 86400 - 59, "in 2 days", "2일 후"),
        (2 * 86400 - 60, "in 1 day, 23 hours", "1일, 23시간 후"),
        (3600 + 61, "in 1 hour, 2 minutes", "1시간, 2분 후"),
        (-30 * 86400 + 1, "4 weeks ago", "4주 전"),
        (-30 * 86400, "10 Apr 2026", "2026년 4월 10일"),
        (30 * 86400, "9 Jun 2026", "2026년 6월 9일"),
    ],
)
def test_times_in_words(seconds: int, english: str, korean: str) -> None:
    when = NOW + timedelta(seconds=seconds)
    assert relative(when).replace("\xa0", " ") == english
    with override("ko"):
        assert relative(when).replace("\xa0", " ") == korean


def test_the_exact_time_has_the_readers_zone() -> None:
    with timezone.override("Asia/Seoul"):
        assert exact(NOW) == "2026-05-10 21:00:30 KST"
        assert time_element(NOW) == (
            '<time class="ago" datetime="2026-05-10T21:00:30+09:00" '
            'title="2026-05-10 21:00:30 KST">just now</time>'
        )
