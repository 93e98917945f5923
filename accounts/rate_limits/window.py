"""Sliding windows in the memory of one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

from django.conf import settings

UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` requests in `span` seconds."""

    most: int
    span: int

    def times(self, factor: int) -> Limit:
        return Limit(self.most * factor, self.span)


@lru_cache(maxsize=256)
def parse_limit(text: str) -> Limit | None:
    """Parse `120/minute`; None for `off`. The settings validate the syntax."""
    if text == "off":
        return None
    most, _slash, word = text.partition("/")
    return Limit(int(most), UNIT_SECONDS[word])


Window = tuple[int, int, int, float]
"""Window index, count in it, count in the window before, and the expiry of both.

A plain tuple: creating a named tuple takes three times as long, for each message.
"""

NO_WINDOW: Window = (0, 0, 0, 0.0)
"""The window of a key without counts."""


class SlidingWindow:
    """Sliding window counters; the window before counts by its overlap.

    Keys are in the order of their last use, the oldest first.
    """

    def __init__(self) -> None:
        self.counts: OrderedDict[str, Window] = OrderedDict()
        self.lock = Lock()

    def hit(self, key: str, limit: Limit, now: float | None = None) -> float:
        """Count one request; return 0, or the seconds to wait if over the limit."""
        moment = time.time() if now is None else now
        with self.lock:
            index, current, last, wait = self.read(key, limit, moment)
            if not wait:
                expiry = (index + 2) * limit.span
                self.counts[key] = index, current + 1, last, expiry
            self.counts.move_to_end(key)
            if len(self.counts) > MAX_KEYS:
                self.evict(moment)
        return wait

    def wait(self, key: str, limit: Limit, now: float | None = None) -> float:
        """Return the result of `hit` without counting, so no key is added."""
        with self.lock:
            return self.read(key, limit, time.time() if now is None else now)[3]

    def read(self, key: str, limit: Limit, now: float) -> Window:
        """Return the window of `key` at `now`, with seconds to wait for its expiry."""
        moment = now / limit.span
        index, passed = int(moment), moment % 1
        at, current, last, _ends = self.counts.get(key, NO_WINDOW)
        if at != index:
            current, last = 0, current if at == index - 1 else 0
        if last * (1 - passed) + current + 1 <= limit.most:
            return index, current, last, 0.0
        wait = limit.span * _until(limit.most, current, last, passed)
        return index, current, last, wait

    def evict(self, now: float) -> None:
        """Drop keys, so that a flood of keys cannot fill the memory.

        Expired windows go first: a flood of short windows must not push out the counts
        of an hour or a day.
        """
        for key in [key for key, window in self.counts.items() if window[3] <= now]:
            del self.counts[key]
        while len(self.counts) > MAX_KEYS // 2:
            self.counts.popitem(last=False)


def _until(most: int, current: int, last: int, passed: float) -> float:
    """Return the time until one more request fits, as a fraction of the window."""
    if current + 1 <= most:
        return 1 - (most - 1 - current) / last - passed
    return 1 - passed + (1 - (most - 1) / current)


PROCESS_WINDOWS = SlidingWindow()


def configured_limit(setting: str) -> Limit | None:
    """Return the limit in this setting; None if it is off."""
    return parse_limit(getattr(settings, setting))
