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
    """So many in so many seconds."""

    most: int
    span: int

    def times(self, factor: int) -> Limit:
        """A wider one."""
        return Limit(self.most * factor, self.span)


@lru_cache(maxsize=256)
def parse_limit(text: str) -> Limit | None:
    """`120/minute` as a Limit; None for `off`. The settings have checked the form."""
    if text == "off":
        return None
    most, _slash, word = text.partition("/")
    return Limit(int(most), UNIT_SECONDS[word])


Window = tuple[int, int, int, float]
"""Index, counts in it and in the last one, and when both say nothing any more.

A plain tuple: a named one takes three times as long to make, for each message.
"""


NO_WINDOW: Window = (0, 0, 0, 0.0)
"""Of a key that has not been counted."""


class SlidingWindow:
    """Sliding windows of one process: the last window counts by its overlap.

    The keys used least recently come first.
    """

    def __init__(self) -> None:
        self.counts: OrderedDict[str, Window] = OrderedDict()
        self.lock = Lock()

    def hit(self, key: str, limit: Limit, now: float | None = None) -> float:
        """Count one: 0 if it is within the limit, else the seconds to wait."""
        moment = time.time() if now is None else now
        with self.lock:
            index, current, last, wait = self.read(key, limit, moment)
            if not wait:
                ends = (index + 2) * limit.span
                self.counts[key] = index, current + 1, last, ends
            self.counts.move_to_end(key)
            if len(self.counts) > MAX_KEYS:
                self.forget(moment)
        return wait

    def wait(self, key: str, limit: Limit, now: float | None = None) -> float:
        """What `hit` would say. Counts nothing, so that no key is kept for it."""
        with self.lock:
            return self.read(key, limit, time.time() if now is None else now)[3]

    def read(self, key: str, limit: Limit, now: float) -> Window:
        """The window of `key` now; in place of its end the seconds to wait."""
        moment = now / limit.span
        index, passed = int(moment), moment % 1
        at, current, last, _ends = self.counts.get(key, NO_WINDOW)
        if at != index:
            current, last = 0, current if at == index - 1 else 0
        if last * (1 - passed) + current + 1 <= limit.most:
            return index, current, last, 0.0
        wait = limit.span * _until(limit.most, current, last, passed)
        return index, current, last, wait

    def forget(self, now: float) -> None:
        """Make room: a flood of keys must not fill the memory.

        What is over goes first: a flood that one address may make within its limit
        ends with its window, and must not push out counts of an hour or a day.
        """
        for key in [key for key, found in self.counts.items() if found[3] <= now]:
            del self.counts[key]
        while len(self.counts) > MAX_KEYS // 2:
            self.counts.popitem(last=False)


def _until(most: int, current: int, last: int, passed: float) -> float:
    """In windows: how long until one more fits."""
    if current + 1 <= most:
        return 1 - (most - 1 - current) / last - passed
    return 1 - passed + (1 - (most - 1) / current)


PROCESS_WINDOWS = SlidingWindow()


def configured_limit(setting: str) -> Limit | None:
    """What a setting says."""
    return parse_limit(getattr(settings, setting))
